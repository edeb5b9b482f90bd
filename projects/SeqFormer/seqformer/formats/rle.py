"""Run-length encoded masks: checking, conversion to compressed RLE, encoding and decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as mask_api

from seqformer.errors import InputError
from seqformer.formats.checks import quoted
from seqformer.structures import RLE

__all__ = [
    "SHORTEST_POLYGON",
    "checked_rles",
    "decode_mask",
    "encode_masks",
    "frame_iou",
    "mask_areas",
    "rle_counts",
    "space_time_iou",
    "to_rle",
]

SHORTEST_POLYGON = 6  # numbers: x and y of three corners
_LONGEST_RUN = 2**32  # pixels
# pycocotools needs memory in proportion to the length of a polygon's sides, in pixels.
_LARGEST_COORDINATE = 1e5
# About 50 bytes each. Of a full HD frame, twice the area is more than the outline of noise.
_LONGEST_OUTLINE = 1e6  # and twice the area of the frame
_MOST_OF_AREA = 1e7


def rle_counts(counts: object) -> np.ndarray:
    """Returns the run lengths of an RLE, in column-major order, background first.

    Args:
        counts: compressed (COCO's string) or uncompressed (a list of integers).

    Returns:
        (R,) int64.

    Raises:
        InputError: if ``counts`` is neither, or is not a valid run-length encoding.
    """
    if isinstance(counts, list):
        try:
            runs = np.asarray(counts)
        except ValueError:  # lists in the list
            runs = np.empty((0, 0))
        if runs.ndim != 1 or runs.dtype.kind not in "iu" or runs.max() > _LONGEST_RUN:
            raise InputError("malformed RLE: 'counts' must be a string or a list of integers")
        return runs.astype(np.int64)
    if not isinstance(counts, str | bytes):
        raise InputError("malformed RLE: 'counts' must be a string or a list of integers")
    characters = np.frombuffer(
        counts if isinstance(counts, bytes) else counts.encode("utf-8", "surrogatepass"), np.uint8
    )
    if not len(characters):
        raise InputError("malformed RLE: 'counts' is empty")
    values = characters - np.uint8(48)  # below 48 it wraps round
    last = (values & 0x20) == 0
    decoded = _decoded(values, last) if values.max() <= 0x3F and last[-1] else None
    if decoded is None:
        raise InputError("malformed RLE: 'counts' is not a compressed run-length string")
    runs = decoded
    # From the fourth number on, the difference from the number two places before is stored.
    runs[2::2] = np.cumsum(runs[2::2])
    runs[1::2] = np.cumsum(runs[1::2])
    return runs


def checked_rles(segmentations: list[Any], height: int, width: int) -> list[RLE | None] | None:
    """Checks all masks of a tracklet at once, which is much faster than :func:`to_rle` for each.

    Args:
        segmentations: T masks from a YouTube-VIS JSON.
        height, width: size of the frames, pixels.

    Returns:
        The masks, if each is None or a compressed RLE that :func:`to_rle` would not change; otherwise None.
    """
    strings = []
    for segmentation in segmentations:
        if segmentation is not None:
            if not isinstance(segmentation, dict) or segmentation.get("size") != [height, width]:
                return None
            counts = segmentation.get("counts")
            if not isinstance(counts, str) or not counts or not counts.isascii():
                return None
            strings.append(counts)
    if not strings:
        return list(segmentations)
    values = np.frombuffer("".join(strings).encode("ascii"), np.uint8) - np.uint8(48)
    if values.max() > 0x3F:
        return None
    last = (values & 0x20) == 0  # whether a character is the last of a number
    lengths = np.fromiter(map(len, strings), np.int64, len(strings))
    string_ends = np.cumsum(lengths)
    if not last[string_ends - 1].all():
        return None
    numbers = _decoded(values, last)
    if numbers is None:
        return None

    # Each string has a first number and then pairs. A number of a pair is the difference from the same number
    # of the pair before, so the cumulative sums over all strings, less those where a string begins, are runs.
    sizes = np.add.reduceat(last, string_ends - lengths, dtype=np.int64)
    firsts = np.cumsum(sizes) - sizes
    pairs = sizes // 2
    first_pairs = np.cumsum(pairs) - pairs
    places = np.arange(len(numbers)) - np.repeat(firsts - 2 * first_pairs, sizes) - 1
    later = np.ones(len(numbers), dtype=bool)
    later[firsts] = False
    table = np.zeros((int(pairs.sum()), 2), np.int64)
    table.ravel()[places[later]] = numbers[later]
    sums = np.concatenate((np.zeros((1, 2), np.int64), np.cumsum(table, axis=0)))
    table = sums[1:] - np.repeat(sums[first_pairs], pairs, axis=0)
    numbers[later] = table.ravel()[places[later]]
    if numbers[firsts].min() < 0 or numbers[later].min(initial=1) < 1:
        return None
    return list(segmentations) if (np.add.reduceat(numbers, firsts) == height * width).all() else None


def _decoded(values: np.ndarray, last: np.ndarray) -> np.ndarray | None:
    """Returns the numbers of compressed RLEs; None if one has more than 32 bits.

    Each character, minus 48, holds 5 bits of a number, lowest first, and a flag that more follow. Bit 4 of a
    number's last character is its sign.

    Args:
        values: (C,) uint8, characters minus 48.
        last: (C,) bool, whether a character is the last of its number.
    """
    ends = np.flatnonzero(last)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > 7:
        return None
    bits = (values & 0x1F).astype(np.int64)
    numbers = bits[starts]
    for place in range(1, lengths.max()):
        longer = np.flatnonzero(lengths > place)
        numbers[longer] |= bits[starts[longer] + place] << (5 * place)
    return numbers - ((bits[ends] >> 4) << (5 * lengths))


def to_rle(segmentation: Any, height: int, width: int) -> RLE | None:
    """Checks a mask from a YouTube-VIS JSON and returns it as compressed RLE.

    Args:
        segmentation: polygons (lists of x, y, x, y, ... in pixels), or an RLE, compressed or not; None or an
            empty list for no mask.
        height, width: size of the frame, pixels.

    Returns:
        The compressed RLE; None if there is no mask.

    Raises:
        InputError: if the segmentation is malformed or has a different size.
    """
    if segmentation is None or segmentation == []:
        return None
    if isinstance(segmentation, list):
        for polygon in segmentation:
            if (
                not isinstance(polygon, list)
                or len(polygon) < SHORTEST_POLYGON
                or len(polygon) % 2
                or not all(isinstance(n, int | float) and abs(n) < _LARGEST_COORDINATE for n in polygon)
            ):
                raise InputError("malformed polygon: it must list x, y of at least three corners")
        corners = [np.reshape(polygon, (-1, 2)) for polygon in segmentation]
        sides = sum(np.abs(np.roll(points, -1, 0) - points).max(1).sum() for points in corners)
        if sides > min(2 * height * width, _MOST_OF_AREA) + _LONGEST_OUTLINE:
            raise InputError(f"malformed polygon: its sides have a length of {sides:.0f} pixels in all")
        rle = mask_api.merge(mask_api.frPyObjects(segmentation, height, width))
        return {"size": [height, width], "counts": rle["counts"].decode("ascii")}
    if not isinstance(segmentation, dict) or "counts" not in segmentation:
        raise InputError(
            "a segmentation must be a list of polygons, an RLE with 'size' and 'counts', or null"
        )
    size = segmentation.get("size")
    if not isinstance(size, list | tuple) or list(size) != [height, width]:
        raise InputError(f"the mask's size is {quoted(size)}, but the frame's is [{height}, {width}]")
    counts = segmentation["counts"]
    runs = rle_counts(counts)
    if runs.min(initial=0) < 0:
        raise InputError(f"malformed RLE: a run of {runs.min()} pixels")
    if runs.sum() != height * width:
        raise InputError(
            f"malformed RLE: the runs cover {runs.sum()} pixels, not {height} x {width} = {height * width}"
        )
    if not runs[1:].all():  # pycocotools' IoU is wrong for runs of zero length, except a first one
        counts = _without_empty_runs(runs).tolist()
    if isinstance(counts, list):
        counts = mask_api.frPyObjects({"size": [height, width], "counts": counts}, height, width)["counts"]
    return {
        "size": [height, width],
        "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts,
    }


def _without_empty_runs(runs: np.ndarray) -> np.ndarray:
    """Joins the runs on both sides of runs of zero length; the first may be of zero length."""
    kinds = np.arange(len(runs)) % 2
    runs, kinds = runs[runs > 0], kinds[runs > 0]
    joined = np.add.reduceat(runs, np.flatnonzero(np.diff(kinds, prepend=-1)))
    return joined if kinds[0] == 0 else np.concatenate(([0], joined))


def decode_mask(rle: RLE) -> np.ndarray:
    """Decodes a compressed RLE to a mask (H, W), uint8, 0 or 1."""
    return mask_api.decode(rle)


def encode_masks(masks: np.ndarray) -> list[RLE | None]:
    """Encodes bool masks (T, H, W) as compressed RLEs; an empty mask becomes None."""
    columns = np.asfortranarray(masks.transpose(1, 2, 0).view(np.uint8))
    return [
        {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}
        if mask.any()
        else None
        for rle, mask in zip(mask_api.encode(columns), masks, strict=True)
    ]


def mask_areas(masks: Sequence[RLE | None]) -> np.ndarray:
    """Returns the areas of T masks, (T,) float64, in pixels; 0 where there is no mask."""
    areas = np.zeros(len(masks))
    seen = [frame for frame, mask in enumerate(masks) if mask is not None]
    if seen:
        areas[seen] = mask_api.area([masks[frame] for frame in seen])
    return areas


def frame_iou(first: Sequence[Sequence[RLE | None]], second: Sequence[Sequence[RLE | None]]) -> np.ndarray:
    """Returns the IoU of tracklets in every frame.

    Args:
        first, second: A and B tracklets with T masks each; None where there is no mask.

    Returns:
        (T, A, B) float64; 0 where one of the two has no mask.
    """
    frames = list(zip(zip(*first, strict=True), zip(*second, strict=True), strict=True))
    iou = np.zeros((len(frames), len(first), len(second)))
    for frame, parts in enumerate(frames):
        rows, columns = ([n for n, mask in enumerate(masks) if mask is not None] for masks in parts)
        if rows and columns:
            found = mask_api.iou(
                [parts[0][n] for n in rows], [parts[1][n] for n in columns], [0] * len(columns)
            )
            iou[frame, np.array(rows)[:, None], columns] = found
    return iou


def space_time_iou(
    first: Sequence[Sequence[RLE | None]],
    second: Sequence[Sequence[RLE | None]],
    areas: tuple[np.ndarray, np.ndarray] | None = None,
    iou: np.ndarray | None = None,
) -> np.ndarray:
    """Returns the space-time IoU of tracklets: intersections and unions are summed over all frames.

    Args:
        first, second: A and B tracklets with T masks each; None where there is no mask.
        areas: (A, T) and (B, T), in pixels, if already known.
        iou: the result of :func:`frame_iou`, if already known.

    Returns:
        (A, B) float64; 0 for two tracklets without a mask.

    Source: the metric of YouTube-VIS (Yang et al., "Video Instance Segmentation", 2019, section 3.2).
    """
    if not len(first) or not len(second):
        return np.zeros((len(first), len(second)))
    first_areas, second_areas = areas or (
        np.stack([mask_areas(masks) for masks in tracklets]) for tracklets in (first, second)
    )
    iou = frame_iou(first, second) if iou is None else iou
    both = first_areas.T[:, :, None] + second_areas.T[:, None]
    # Intersection and union add up to both areas, and their ratio is the IoU. They are whole pixels.
    intersection = np.rint(iou / (1 + iou) * both).sum(0)
    union = both.sum(0) - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
