"""Renders scenes in integer arithmetic: frames and the exact masks of visible pixels.

A pixel is one uint64 with four lanes of 16 bits: red, green, blue and alpha, 0 to 255, with premultiplied
alpha. Weights of a bilinear sample add up to 256, so all lanes are computed at once without overflow, and the
result does not depend on the machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from seqformer.data.photo_vis.curves import sine
from seqformer.data.photo_vis.material import Material
from seqformer.data.photo_vis.scene import ASPECT, Actor, Camera, Post, Scene

__all__ = ["render"]

_LANES = np.uint64(0x00FF00FF00FF00FF)
_EIGHT, _ALPHA = np.uint64(8), np.uint64(48)
_PARTS = 4  # moments rendered while the shutter is open
_OPEN = 0.6  # fraction of a frame's time with an open shutter

_Layer = tuple[tuple[slice, slice], np.ndarray]  # rows and columns, and their pixels in four lanes


def render(scene: Scene, material: Material, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Renders a video.

    Args:
        scene: see :func:`seqformer.data.photo_vis.scene.make_scene`.
        material: its photographs.
        height: height of a frame in pixels.

    Returns:
        frames (T, H, W, 3) uint8 RGB, and masks (N, T, H, W) bool of the N instances. A mask contains the
        pixels with more than half of their light from the instance while the shutter is open. Masks never
        overlap.
    """
    width = round(height * ASPECT)
    frames = np.empty((scene.length, height, width, 3), dtype=np.uint8)
    masks = np.empty((len(scene.actors), scene.length, height, width), dtype=bool)
    stage = _Stage(scene, material, height, width)
    offsets = [_OPEN * part / _PARTS for part in range(_PARTS)] if scene.blurred else [0.0]
    for t in range(scene.length):
        light = np.zeros((height, width), dtype=np.uint64)
        seen = np.zeros((len(scene.actors), height, width), dtype=np.uint16)
        for offset in offsets:
            picture, visible = stage.draw(t + offset)
            light += picture
            seen += visible
        masks[:, t] = seen * np.uint16(2) > np.uint16(255 * len(offsets))
        colors = light.astype("<u8").view("<u2").reshape(height, width, 4)[..., :3].astype(np.uint32)
        gain = int(256.0 * scene.brightness(float(t)) / len(offsets))
        frames[t] = ((colors * np.uint32(gain)) >> 8).clip(max=255)
    return frames, masks


@dataclass
class _Texture:
    """A picture to sample from.

    Attributes:
        pixels: (h, w) with four lanes.
        scale: pixels of the texture per longest side of a cut-out, or per height of a photograph.
        left, top: position of the piece in the photograph, in pixels of the texture.
    """

    pixels: np.ndarray
    scale: float
    left: int = 0
    top: int = 0


class _Stage:
    def __init__(self, scene: Scene, material: Material, height: int, width: int):
        self.scene = scene
        self.height, self.width = height, width
        self.x = np.arange(width) + (0.5 - 0.5 * width)  # pixel centres, relative to the frame's centre
        self.y = np.arange(height) + (0.5 - 0.5 * height)
        self.background = _photograph(material, scene.camera, scene.length, height)
        self.actors = [_cutout(material, actor, scene.length, height) for actor in scene.actors]
        self.posts = [_piece(material, post, height) for post in scene.posts]

    def draw(self, time: float) -> tuple[np.ndarray, np.ndarray]:
        """Returns a picture (H, W) with four lanes, and the visible alpha (N, H, W), uint16, 0 to 255."""
        picture = self._background(time)
        visible = np.zeros((len(self.actors), self.height, self.width), dtype=np.uint16)
        for index, (actor, texture) in enumerate(zip(self.scene.actors, self.actors, strict=True)):
            drawn = self._actor(actor, texture, time)
            if drawn is not None:
                alpha = _cover(picture, visible[:index], *drawn)
                visible[index][drawn[0]] = alpha
        for post, texture in zip(self.scene.posts, self.posts, strict=True):
            drawn = self._post(post, texture, time)
            if drawn is not None:
                _cover(picture, visible, *drawn)
        return picture, visible

    def _background(self, time: float) -> np.ndarray:
        camera, texture = self.scene.camera, self.background
        angle = camera.angle(time)
        step = camera.view(time) * texture.scale / self.height  # texture pixels per pixel
        cos, sin = step * sine(angle + 0.25), step * sine(angle)
        center_x = camera.x(time) * texture.scale - texture.left - 0.5
        center_y = camera.y(time) * texture.scale - texture.top - 0.5
        x = (cos * self.x)[None, :] - (sin * self.y)[:, None] + center_x
        y = (sin * self.x)[None, :] + (cos * self.y)[:, None] + center_y
        return _sample(texture.pixels, x, y)

    def _actor(self, actor: Actor, texture: _Texture, time: float) -> _Layer | None:
        height, width = texture.pixels.shape
        size = actor.size(time) * self.height
        angle, turn, bend = actor.angle(time), actor.turn(time), actor.bend(time)
        center_x, center_y = (coordinate * self.height for coordinate in actor.place(time))
        cos, sin = sine(angle + 0.25), sine(angle)
        ratio = texture.scale / size  # texture pixels per pixel
        along_x = width >= height  # the long axis, which bends
        half_x = 0.5 * width * turn / ratio + (0.0 if along_x else abs(bend) * size)
        half_y = 0.5 * height / ratio + (abs(bend) * size if along_x else 0.0)
        reach_x = abs(cos) * half_x + abs(sin) * half_y
        reach_y = abs(sin) * half_x + abs(cos) * half_y
        columns = _span(center_x, reach_x, self.width)
        rows = _span(center_y, reach_y, self.height)
        if columns is None or rows is None:
            return None
        dx, dy = self.x[columns] - center_x, self.y[rows] - center_y
        p = ((cos * dx)[None, :] + (sin * dy)[:, None]) * (ratio / turn)
        q = ((cos * dy)[:, None] - (sin * dx)[None, :]) * ratio
        long, amount = (p, q) if along_x else (q, p)
        relative = long * (2.0 / texture.scale)
        amount -= (relative * relative - 1.0 / 3.0) * (bend * texture.scale)
        return (rows, columns), _sample(texture.pixels, p + 0.5 * (width - 1), q + 0.5 * (height - 1))

    def _post(self, post: Post, texture: _Texture, time: float) -> _Layer | None:
        center = post.x(time) * self.height
        columns = _span(center, 0.5 * post.width * self.height, self.width)
        if columns is None:
            return None
        height, width = texture.pixels.shape
        x = self.x[columns] - center + 0.5 * (width - 1)
        shape = (self.height, len(x))
        y = np.broadcast_to(np.arange(self.height, dtype=np.float64)[:, None], shape)
        return (slice(0, self.height), columns), _sample(texture.pixels, np.broadcast_to(x, shape), y)


def _span(center: float, reach: float, size: int) -> slice | None:
    """Returns the pixels along one axis that a layer can touch; None if there are none."""
    start = max(int(center + 0.5 * size - reach - 2.0), 0)
    stop = min(int(center + 0.5 * size + reach + 3.0), size)
    return slice(start, stop) if start < stop else None


def _sample(pixels: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns bilinear samples. Outside the picture its edge pixels are repeated.

    Args:
        pixels: (h, w) with four lanes; both sides at least 2.
        x, y: coordinates of equal shape; 0, 0 is the centre of the first pixel.
    """
    height, width = pixels.shape
    x, y = (
        np.floor(np.clip(coordinate, 0.0, size - 1.0) * 16.0).astype(np.int32).clip(max=16 * (size - 1) - 1)
        for coordinate, size in ((x, width), (y, height))
    )
    index = (y >> 4) * np.int32(width) + (x >> 4)
    right, down = (x & 15).astype(np.uint64), (y & 15).astype(np.uint64)
    left, up = np.uint64(16) - right, np.uint64(16) - down
    flat = pixels.reshape(-1)
    total = flat.take(index) * (left * up)
    total += flat.take(index + 1) * (right * up)
    total += flat.take(index + width) * (left * down)
    total += flat.take(index + (width + 1)) * (right * down)
    total >>= _EIGHT
    total &= _LANES
    return total


def _cover(
    picture: np.ndarray, visible: np.ndarray, place: tuple[slice, slice], layer: np.ndarray
) -> np.ndarray:
    """Paints a layer over a picture and reduces the visible alpha below it, in place; returns its alpha."""
    alpha = layer >> _ALPHA
    rest = np.uint64(256) - (alpha + (alpha >> np.uint64(7)))  # 256 to 0
    below = picture[place]
    picture[place] = layer + (((below * rest) >> _EIGHT) & _LANES)
    before = visible[(slice(None), *place)]
    before[:] = (before * rest.astype(np.uint16)) >> np.uint16(8)
    return alpha.astype(np.uint16)


def _pack(image: np.ndarray) -> np.ndarray:
    """(h, w, 4) uint8 -> (h, w) with four lanes."""
    lanes = np.ascontiguousarray(image, dtype="<u2")
    return lanes.view("<u8")[..., 0].astype(np.uint64)


def _opaque(image: Image.Image) -> np.ndarray:
    return np.dstack([np.asarray(image), np.full((image.height, image.width), 255, dtype=np.uint8)])


def _nearest_factor(ratio: float) -> int:
    return max(int(ratio + 0.5), 1)


def _cutout(material: Material, actor: Actor, length: int, height: int) -> _Texture:
    image = material.cutout(actor.cutout)
    longest = max(image.size)
    size = max(actor.size(float(t)) for t in range(length)) * height
    factor = _nearest_factor(longest / size)
    pixels = np.asarray(image.reduce(factor)).astype(np.uint32)
    if actor.mirrored:
        pixels = pixels[:, ::-1]
    alpha = pixels[..., 3:]
    colors = np.minimum((pixels[..., :3] * np.asarray(actor.gains, dtype=np.uint32)) >> 8, alpha)
    padded = np.pad(np.concatenate([colors, alpha], axis=2), ((1, 1), (1, 1), (0, 0)))
    return _Texture(_pack(padded), longest / factor)


def _photograph(material: Material, camera: Camera, length: int, height: int) -> _Texture:
    image = material.background(camera.background)
    times = [0.5 * half for half in range(2 * length + 1)]
    views = [camera.view(time) for time in times]
    factor = _nearest_factor(min(views) * image.height / height)
    reach_x, reach_y = 0.56 * ASPECT * max(views), 0.62 * max(views)  # with a margin for rotation
    left, top, right, bottom = (
        min(max(int(extreme * image.height), 0), limit)
        for extreme, limit in (
            (min(map(camera.x, times)) - reach_x, image.width - 8),
            (min(map(camera.y, times)) - reach_y, image.height - 8),
            (max(map(camera.x, times)) + reach_x, image.width),
            (max(map(camera.y, times)) + reach_y, image.height),
        )
    )
    left, top = left // factor * factor, top // factor * factor
    piece = image.crop((left, top, right, bottom)).reduce(factor)
    return _Texture(_pack(_opaque(piece)), image.height / factor, left // factor, top // factor)


def _piece(material: Material, post: Post, height: int) -> _Texture:
    """Returns a piece as high as the frame and as wide as the post, with transparent columns at its sides."""
    image = material.background(post.background)
    width = max(int(post.width * height), 4)
    factor = max(min(image.width * 2 // (5 * width), image.height * 3 // (5 * height), 4), 1)
    left, top = int(post.corner[0] * image.width), int(post.corner[1] * image.height)
    piece = image.crop((left, top, left + width * factor, top + height * factor)).reduce(factor)
    return _Texture(np.pad(_pack(_opaque(piece)), ((0, 0), (1, 1))), float(height))
