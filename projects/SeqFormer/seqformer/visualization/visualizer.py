"""Draws instances on frames. The same colour is the same instance."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = [
    "Box",
    "draw_instances",
    "draw_masks",
    "instance_color",
    "mask_bounds",
    "place_label",
    "visible_parts",
]

_GOLDEN_TURN = (math.sqrt(5) - 1) / 2  # of the hue circle; spreads any number of hues evenly
_LIGHTNESS = (
    0.72,
    0.65,
    0.79,
    0.58,
    0.87,
)  # used in turn, so that instances with similar hues differ in lightness
_CHROMA = 0.2
_LABEL_TEXT = (16, 16, 16)
_SUPERSAMPLING = 4  # for the rounded corners of labels


class Box(NamedTuple):
    """A box in pixels; right and bottom are exclusive."""

    left: int
    top: int
    right: int
    bottom: int

    def overlap(self, other: Box) -> int:
        """Returns the area of the intersection, pixels."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0) * max(height, 0)

    @property
    def region(self) -> tuple[slice, slice]:
        """The index of its pixels in an array (H, W)."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


def draw_instances(
    frame: np.ndarray,
    masks: np.ndarray,
    instance_ids: Sequence[int],
    labels: Sequence[str],
    scores: Sequence[float | None],
    *,
    opacity: float = 0.45,
) -> np.ndarray:
    """Draws the instances of one frame: tinted masks, outlines, and labels such as "person 0.93 #3".

    Where masks overlap, the higher score is on top. Labels are placed at the top of their mask, and do not
    overlap if there is space. Line width and font size scale with the frame.

    Args:
        frame: (H, W, 3) uint8 RGB; it is not modified.
        masks: (N, H, W) bool. Instances with an empty mask are not drawn.
        instance_ids: N ids, which determine the colours.
        labels: N class names.
        scores: N scores in [0, 1]; None for instances without one, such as ground truth, which are on top.
        opacity: opacity of the tint, in [0, 1].

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: if the arguments differ in N, or masks and frame in size.
    """
    masks = np.asarray(masks, dtype=bool)
    if len({len(masks), len(instance_ids), len(labels), len(scores)}) > 1:
        raise ValueError("masks, instance_ids, labels and scores must have the same number of instances")
    drawn = frame.copy()
    if not len(masks):
        return drawn
    if masks.shape[1:] != frame.shape[:2]:
        raise ValueError(f"masks of {masks.shape[1:]} pixels on a frame of {frame.shape[:2]}")

    ranks = [math.inf if score is None else score for score in scores]
    worst_first = sorted(range(len(masks)), key=ranks.__getitem__)
    short_side = min(frame.shape[:2])
    bounds = draw_masks(
        drawn, masks, instance_ids, worst_first, opacity=opacity, thickness=max(1, round(short_side / 360))
    )
    font_size = max(11, round(short_side / 44))
    placed: list[Box] = []
    for i in reversed(worst_first):
        box = bounds[i]
        if box is not None:
            score = "" if scores[i] is None else f" {scores[i]:.2f}"
            text = f"{labels[i]}{score} #{instance_ids[i]}"
            picture = _label(text, instance_color(instance_ids[i]), font_size)
            placed.append(place_label(picture.shape[:2], box, placed, frame.shape[:2]))
            _paste(drawn, picture, placed[-1])
    return drawn


def draw_masks(
    frame: np.ndarray,
    masks: np.ndarray,
    instance_ids: Sequence[int],
    worst_first: Sequence[int],
    *,
    opacity: float = 0.45,
    thickness: int = 1,
) -> list[Box | None]:
    """Tints and outlines instances, in place.

    Args:
        frame: (H, W, 3) uint8 RGB.
        masks: (N, H, W) bool.
        instance_ids: N ids, which determine the colours.
        worst_first: indices in drawing order; the last is on top.
        opacity: opacity of the tint, in [0, 1].
        thickness: thickness of the outlines, pixels.

    Returns:
        the N tight boxes of the masks; None for empty ones.
    """
    colors = np.array([instance_color(i) for i in instance_ids], dtype=np.uint8)
    bounds = [mask_bounds(mask) for mask in masks]
    visible = visible_parts(masks, worst_first, bounds)
    covered = visible >= 0
    tint = colors[visible[covered]].astype(np.float32)
    frame[covered] = np.rint((1 - opacity) * frame[covered] + opacity * tint).astype(np.uint8)
    for i in worst_first:
        if (box := bounds[i]) is not None:
            part = (visible[box.region] == i).view(np.uint8)
            contours, _ = cv2.findContours(part, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=box[:2])
            cv2.drawContours(frame, contours, -1, colors[i].tolist(), thickness, cv2.LINE_AA)
    return bounds


@lru_cache(maxsize=4096)
def instance_color(instance_id: int) -> tuple[int, int, int]:
    """Returns the RGB colour of an instance, 0 to 255. It depends on the id only, and differs between ids.

    Hues advance by the golden section of the circle in OKLCH, a colour space in which equal steps look equal.
    """
    hue = 2 * math.pi * ((0.07 + instance_id * _GOLDEN_TURN) % 1)
    lightness = _LIGHTNESS[instance_id % len(_LIGHTNESS)]
    chroma = _CHROMA
    linear = _oklch_to_linear_rgb(lightness, chroma, hue)
    while min(linear) < 0 or max(linear) > 1:  # the most vivid colour in sRGB
        chroma -= 0.005
        linear = _oklch_to_linear_rgb(lightness, chroma, hue)
    red, green, blue = (round(255 * _gamma(c)) for c in linear)
    return red, green, blue


def _oklch_to_linear_rgb(lightness: float, chroma: float, hue: float) -> tuple[float, float, float]:
    """Converts OKLCH to linear RGB. Source: Ottosson, "A perceptual color space for image processing"."""
    a, b = chroma * math.cos(hue), chroma * math.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )


def _gamma(linear: float) -> float:
    return 12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055


def visible_parts(
    masks: np.ndarray, worst_first: Sequence[int], bounds: Sequence[Box | None] | None = None
) -> np.ndarray:
    """Returns the index (H, W) of the topmost instance at each pixel; -1 where there is none.

    Args:
        masks: (N, H, W) bool.
        worst_first: indices in order; the last is on top.
        bounds: the boxes of the masks, if already known.
    """
    visible = np.full(masks.shape[1:], -1, dtype=np.int32)
    for i in worst_first:
        if (box := bounds[i] if bounds else mask_bounds(masks[i])) is not None:
            visible[box.region][masks[i][box.region]] = i
    return visible


def mask_bounds(mask: np.ndarray) -> Box | None:
    """Returns the tight box of a mask (H, W); None if it is empty."""
    mask = mask.astype(np.uint8, copy=False)
    if mask.flags.f_contiguous:  # as decoded; OpenCV would copy it
        top, left, height, width = cv2.boundingRect(mask.T)
    else:
        left, top, width, height = cv2.boundingRect(mask)
    return Box(left, top, left + width, top + height) if width else None


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # only without a size it may be a bitmap font
    return font


@lru_cache(maxsize=1024)
def _label(text: str, color: tuple[int, int, int], font_size: int) -> np.ndarray:
    """Draws a label, (h, w, 4) uint8 RGBA. Cached, because it is the same in all frames of a video."""
    font = _font(font_size)
    ascent, descent = font.getmetrics()
    pad = max(2, round(font_size / 4))
    size = math.ceil(font.getlength(text)) + 2 * pad, ascent + descent + pad
    large = (size[0] * _SUPERSAMPLING, size[1] * _SUPERSAMPLING)
    shape = Image.new("L", large)
    ImageDraw.Draw(shape).rounded_rectangle(
        (0, 0, large[0] - 1, large[1] - 1), radius=1.2 * pad * _SUPERSAMPLING, fill=235
    )
    picture = Image.new("RGBA", size, color)
    ImageDraw.Draw(picture).text((pad, pad // 2), text, font=font, fill=_LABEL_TEXT)
    picture.putalpha(shape.resize(size, Image.Resampling.BOX))
    return np.asarray(picture)


def place_label(
    size: tuple[int, int], bounds: Box, placed: Sequence[Box], frame_size: tuple[int, int]
) -> Box:
    """Returns the first free place for a label of (height, width), or else the least covered one."""
    best, least = None, math.inf
    for left, top in _places(size, bounds):
        left = max(0, min(left, frame_size[1] - size[1]))
        top = max(0, min(top, frame_size[0] - size[0]))
        box = Box(left, top, left + size[1], top + size[0])
        covered = sum(box.overlap(other) for other in placed)
        if covered < least:
            best, least = box, covered
        if not covered:
            break
    assert best is not None  # there is always a place
    return best


def _places(size: tuple[int, int], bounds: Box) -> Iterator[tuple[int, int]]:
    """Yields left and top of places for a label: above the mask, then the nearest to that, then below."""
    height, width = size
    gap = max(1, height // 6)
    left, top = (bounds.left + bounds.right - width) // 2, bounds.top - height - gap
    shifts = [(x * width // 4, y * (height + 1)) for x in range(-4, 5) for y in range(-3, 3)]
    for x, y in sorted(shifts, key=lambda shift: math.hypot(*shift)):
        yield left + x, top + y
    yield left, bounds.bottom + gap


def _paste(frame: np.ndarray, picture: np.ndarray, box: Box) -> None:
    """Blends an RGBA picture into the frame, in place, and clips it to the frame."""
    region = frame[box.top : box.bottom, box.left : box.right]
    picture = picture[: region.shape[0], : region.shape[1]]
    alpha = picture[..., 3:].astype(np.float32) / 255
    region[:] = np.rint(alpha * picture[..., :3] + (1 - alpha) * region).astype(np.uint8)
