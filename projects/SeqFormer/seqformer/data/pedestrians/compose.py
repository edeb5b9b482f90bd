"""Videos of people who move, occlude each other and leave, composed of cut-outs, with exact masks.

A video is a stack of layers: a background (the empty street, or real frames with known people), then people
from far to near. Layers in front occlude those behind, in the picture and in the masks. All coordinates are
source pixels until the picture is resized for output.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from seqformer.data.pedestrians.cutouts import OCCLUDER_FOOT, Blob, Scene, Track, number_people

__all__ = ["Composer", "Layer", "Video"]

MIN_TRACK = 8  # frames; shorter tracks are not pasted
MAX_SCALE = 1.8  # cut-outs look blurred if enlarged more
MIN_VISIBLE = 12  # output pixels; an instance with fewer is not visible
FOOT_ROWS = (
    100.0,
    680.0,
)  # feet of pasted people; if they are below the picture, only the upper body is visible


@dataclass
class Layer:
    """One person in one frame: ``patch`` (h, w, 3) with ``alpha`` (h, w) in [0, 1], top left at ``xy``."""

    identity: int
    foot: float
    patch: np.ndarray
    alpha: np.ndarray
    xy: tuple[int, int]
    shadow: float = 0.0


@dataclass
class Video:
    """Output frames (T, H, W, 3) BGR and the masks (T, H, W) bool of each instance, which never overlap."""

    frames: np.ndarray
    masks: dict[int, np.ndarray]


@dataclass
class _Actor:
    """A pasted person: its cut-outs and their order, place, size and brightness."""

    track: Track
    order: list[int]
    shift: np.ndarray  # of the foot point, xy
    flip: bool
    jitter: float
    gain: np.ndarray
    shadow: float


class Composer:
    """Composes videos of one part of the source.

    Args:
        scene: source of background, cut-outs and real frames.
        size: height and width of the output in pixels.
        length: frames in a video.
    """

    def __init__(self, scene: Scene, size: tuple[int, int], length: int) -> None:
        self.scene = scene
        self.size = size
        self.length = length
        self.tracks = [track for track in scene.tracks if len(track.blobs) >= MIN_TRACK]
        lengths = np.sqrt([len(track.blobs) for track in self.tracks])
        self.weights = lengths / lengths.sum()
        people = number_people(self.tracks, scene.frames, scene.perspective)
        self.owner = {id(b): n for n, track in zip(people, self.tracks, strict=True) for b in track.blobs}

    def compose(self, rng: np.random.Generator, real: bool) -> Video:
        """Composes one video, over real frames or over the empty street."""
        if real:
            backgrounds, layers = self._real_clip(rng)
            actors = self._actors(rng, int(rng.integers(0, 5)))
        else:
            backgrounds = [self.scene.background] * self.length
            layers = [[] for _ in range(self.length)]
            actors = self._actors(rng, int(rng.integers(2, 10)))
        drift = 1 + rng.normal(0, 0.03) + np.linspace(0, rng.normal(0, 0.02), self.length)
        noise = rng.uniform(0.5, 2.5)
        frames, labels = [], []
        for t in range(self.length):
            people = layers[t] + [
                self._pose(actor, len(self.tracks) + i, t) for i, actor in enumerate(actors)
            ]
            picture, label = self._paint(backgrounds[t].astype(np.float32), people)
            frames.append(self._finish(picture * drift[t], noise, rng))
            labels.append(label)
        identities = sorted({i for label in labels for i in np.unique(label).tolist()} - {-1})
        return Video(np.stack(frames), self._output_masks(labels, identities))

    def _real_clip(self, rng: np.random.Generator) -> tuple[list[np.ndarray], list[list[Layer]]]:
        """Returns real frames, with everyone painted over except known single people, and these people."""
        step = int(rng.integers(1, 3))
        start = int(rng.integers(0, len(self.scene.frames) - step * self.length))
        backgrounds, layers = [], []
        for index in range(start, start + step * self.length, step):
            frame = self.scene.frames[index]
            known = [blob for blob in self.scene.blobs[index] if id(blob) in self.owner]
            unknown = self.scene.foreground[index].astype(np.uint8)
            kept = np.zeros(self.scene.size, np.uint8)
            for blob in known:
                x0, y0, x1, y1 = blob.box
                kept[y0:y1, x0:x1] |= blob.mask.astype(np.uint8)
            near = cv2.dilate(kept, np.ones((3, 3), np.uint8)) > 0
            cover = cv2.dilate(unknown & ~near, np.ones((15, 15)))
            cover = cv2.GaussianBlur(cover.astype(np.float32), (0, 0), 2.0)
            cover *= 1 - cv2.GaussianBlur(kept.astype(np.float32), (0, 0), 1.0).clip(0, 1)
            background = frame + cover[..., None] * (self.scene.background.astype(np.float32) - frame)
            backgrounds.append(background)
            layers.append([self._in_place(background, blob) for blob in known])
        return backgrounds, layers

    def _in_place(self, frame: np.ndarray, blob: Blob) -> Layer:
        x0, y0, x1, y1 = blob.box
        alpha = blob.mask.astype(np.float32)
        return Layer(self.owner[id(blob)], blob.foot, frame[y0:y1, x0:x1].copy(), alpha, (x0, y0))

    def _actors(self, rng: np.random.Generator, count: int) -> list[_Actor]:
        """Chooses people to paste, half of them next to or behind others, as people walk."""
        width = self.scene.size[1]
        actors: list[_Actor] = []
        middles: list[np.ndarray] = []
        while len(actors) < count:
            track = self.tracks[rng.choice(len(self.tracks), p=self.weights)]
            order = _play(len(track.blobs), self.length, rng)
            flip = bool(rng.random() < 0.5)
            jitter = float(rng.uniform(0.85, 1.2))
            middle = self._foot(track.blobs[order[self.length // 2]], flip)
            perspective = self.scene.perspective
            if middles and rng.random() < 0.5:
                near = middles[rng.integers(len(middles))]
                aside = np.array([rng.uniform(-0.6, 0.6), rng.uniform(-0.25, 0.25)])
                goal = near + aside * perspective.height(near[1])
            elif rng.random() < 0.35:  # the original place, a step aside
                goal = middle + rng.normal(0, 15, 2)
            else:
                goal = np.array([rng.uniform(-20, width + 20), rng.uniform(*FOOT_ROWS)])
            if jitter * perspective.height(goal[1]) > MAX_SCALE * perspective.height(middle[1]):
                continue
            middles.append(goal)
            actors.append(
                _Actor(
                    track,
                    order,
                    goal - middle,
                    flip,
                    jitter,
                    gain=rng.uniform(0.8, 1.25) * rng.uniform(0.95, 1.05, 3),
                    shadow=float(rng.choice([0.0, rng.uniform(0.1, 0.35)])),
                )
            )
        return actors

    def _foot(self, blob: Blob, flip: bool) -> np.ndarray:
        x, y = blob.foot_point
        return np.array([self.scene.size[1] - x if flip else x, y], np.float64)

    def _pose(self, actor: _Actor, identity: int, t: int) -> Layer:
        blob = actor.track.blobs[actor.order[t]]
        x, y = self._foot(blob, actor.flip) + actor.shift
        perspective = self.scene.perspective
        scale = actor.jitter * perspective.height(y) / perspective.height(blob.foot)
        margin = 3
        x0, y0, x1, y1 = blob.box
        top, left = max(y0 - margin, 0), max(x0 - margin, 0)
        patch = self.scene.frames[blob.frame][top : y1 + margin, left : x1 + margin]
        alpha = np.zeros(patch.shape[:2], np.float32)
        alpha[y0 - top : y1 - top, x0 - left : x1 - left] = blob.mask
        if actor.flip:
            patch, alpha = patch[:, ::-1], alpha[:, ::-1]
        w, h = (max(round(side * scale), 2) for side in patch.shape[1::-1])
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        patch = cv2.resize(patch.astype(np.float32), (w, h), interpolation=interpolation)
        alpha = cv2.resize(alpha, (w, h), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        alpha = cv2.GaussianBlur(alpha, (0, 0), 0.5)
        foot = h - margin * scale
        return Layer(
            identity,
            y,
            (patch * actor.gain).clip(0, 255),
            alpha.clip(0, 1),
            (round(x - w / 2), round(y - foot)),
            actor.shadow,
        )

    def _paint(self, picture: np.ndarray, people: list[Layer]) -> tuple[np.ndarray, np.ndarray]:
        """Paints people from far to near; returns the picture and the identity at each pixel (-1: none)."""
        height, width = self.scene.size
        label = np.full((height, width), -1, np.int32)
        picture = picture.copy()
        for layer in sorted(people, key=lambda layer: layer.foot):
            x, y = layer.xy
            h, w = layer.alpha.shape
            if layer.shadow:
                _darken(picture, (x + w / 2, y + h - 4), w * 0.45, layer.shadow)
            x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
            if x0 >= x1 or y0 >= y1:
                continue
            inside = (slice(y0, y1), slice(x0, x1))
            own = (slice(y0 - y, y1 - y), slice(x0 - x, x1 - x))
            alpha = layer.alpha[own]
            if layer.foot < OCCLUDER_FOOT:
                alpha = alpha * ~self.scene.occluders[inside]
            picture[inside] += alpha[..., None] * (layer.patch[own] - picture[inside])
            label[inside][alpha > 0.5] = layer.identity
        return picture, label

    def _finish(self, picture: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
        height, width = self.size
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        picture = picture + rng.normal(0, noise, picture.shape)
        return picture.clip(0, 255).astype(np.uint8)

    def _output_masks(self, labels: list[np.ndarray], identities: list[int]) -> dict[int, np.ndarray]:
        height, width = self.size
        masks = {i: np.zeros((len(labels), height, width), bool) for i in identities}
        for t, label in enumerate(labels):
            present = np.unique(label)  # includes -1, for no person, at the front
            shares = np.stack(
                [
                    cv2.resize((label == i).astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
                    for i in present
                ]
            )
            winner = present[shares.argmax(0)]
            for i in present.tolist():
                mask = winner == i
                if i >= 0 and mask.sum() >= MIN_VISIBLE:
                    masks[i][t] = mask
        return {i: mask for i, mask in masks.items() if mask.any()}


def _play(available: int, length: int, rng: np.random.Generator) -> list[int]:
    """Returns indices of cut-outs: walking, some at double speed, a few standing; reversed at the ends."""
    if rng.random() < 0.1:
        return [int(rng.integers(available))] * length
    step = int(rng.choice([1, 1, 2]))
    positions = rng.integers(available) + step * np.arange(length)
    period = max(2 * (available - 1), 1)
    folded = positions % period
    order = np.where(folded < available, folded, period - folded)
    return (order if rng.random() < 0.8 else order[::-1]).tolist()


def _darken(picture: np.ndarray, centre: tuple[float, float], radius: float, strength: float) -> None:
    """Paints a soft shadow on the ground, in place."""
    x, y = centre
    rx, ry = radius * 1.3, max(radius * 0.35, 2)
    height, width = picture.shape[:2]
    x0, x1 = max(int(x - 2 * rx), 0), min(int(x + 2 * rx), width)
    y0, y1 = max(int(y - 2 * ry), 0), min(int(y + 2 * ry), height)
    if x0 >= x1 or y0 >= y1:
        return
    dx = (np.arange(x0, x1) - x) / rx
    dy = (np.arange(y0, y1) - y) / ry
    shade = strength * np.exp(-(dx[None] ** 2 + dy[:, None] ** 2))
    picture[y0:y1, x0:x1] *= (1 - shade)[..., None]
