"""Run-length encoded masks: checking, conversion to compressed RLE, encoding and decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as mask_api

from seqformer.errors import InputError
from seqformer.structures import RLE

__all__ = [
    "SHORTEST_POLYGON",
    "decode_mask",
    "encode_masks",
    "mask_areas",
    "rle_counts",
    "space_time_iou",
    "to_rle",
]

SHORTEST_POLYGON = 6  # numbers: x and y of three corners
_LONGEST_RUN = 2**32  # pixels
# pycocotools needs memory in proportion to the length of a polygon's sides, in pixels.
_LARGEST_COORDINATE = 1e5
_LONGEST_OUTLINE = 1e6  # and twice the area of the frame, which is more than the outline of noise


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
    # Each character, minus 48, holds 5 bits of a number, lowest first, and a flag that more follow. Bit 4 of
    # a number's last character is its sign. From the third number on, the difference from the number two
    # places before is stored.
    characters = np.frombuffer(
        counts if isinstance(counts, bytes) else counts.encode("utf-8", "surrogatepass"), np.uint8
    )
    if not len(characters):
        raise InputError("malformed RLE: 'counts' is empty")
    values = characters.astype(np.int64) - 48
    last = (values & 0x20) == 0
    if values.min() < 0 or values.max() > 0x3F or not last[-1]:
        raise InputError("malformed RLE: 'counts' is not a compressed run-length string")
    ends = np.flatnonzero(last)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > 7:  # more than 32 bits
        raise InputError("malformed RLE: 'counts' is not a compressed run-length string")
    places = np.arange(len(values)) - np.repeat(starts, lengths)
    runs = np.add.reduceat((values & 0x1F) << (5 * places), starts)
    runs -= np.where(values[ends] & 0x10, np.int64(1) << (5 * lengths), 0)
    runs[2::2] = np.cumsum(runs[2::2])
    runs[1::2] = np.cumsum(runs[1::2])
    return runs


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
        if sides > 2 * height * width + _LONGEST_OUTLINE:
            raise InputError(f"malformed polygon: its sides have a length of {sides:.0f} pixels in all")
        rle = mask_api.merge(mask_api.frPyObjects(segmentation, height, width))
        return {"size": [height, width], "counts": rle["counts"].decode("ascii")}
    if not isinstance(segmentation, dict) or "counts" not in segmentation:
        raise InputError(
            "a segmentation must be a list of polygons, an RLE with 'size' and 'counts', or null"
        )
    size = segmentation.get("size")
    if not isinstance(size, list | tuple) or list(size) != [height, width]:
        raise InputError(f"the mask's size is {size}, but the frame's is [{height}, {width}]")
    counts = segmentation["counts"]
    runs = rle_counts(counts)
    if runs.min(initial=0) < 0:
        raise InputError(f"malformed RLE: a run of {runs.min()} pixels")
    if runs.sum() != height * width:
        raise InputError(
            f"malformed RLE: the runs cover {runs.sum()} pixels, not {height} x {width} = {height * width}"
        )
    if isinstance(counts, list):
        counts = mask_api.frPyObjects({"size": [height, width], "counts": counts}, height, width)["counts"]
    return {
        "size": [height, width],
        "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts,
    }


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


def space_time_iou(
    first: Sequence[Sequence[RLE | None]],
    second: Sequence[Sequence[RLE | None]],
    areas: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Returns the space-time IoU of tracklets: intersections and unions are summed over all frames.

    Args:
        first, second: A and B tracklets with T masks each; None where there is no mask.
        areas: (A, T) and (B, T), in pixels, if already known.

    Returns:
        (A, B) float64; 0 for two tracklets without a mask.

    Source: the metric of YouTube-VIS (Yang et al., "Video Instance Segmentation", 2019, section 3.2).
    """
    if not len(first) or not len(second):
        return np.zeros((len(first), len(second)))
    first_areas, second_areas = areas or (
        np.stack([mask_areas(masks) for masks in tracklets]) for tracklets in (first, second)
    )
    intersection = np.zeros((len(first), len(second)))
    for frame in range(len(first[0])):
        rows, columns = (np.flatnonzero(area[:, frame]).tolist() for area in (first_areas, second_areas))
        if rows and columns:
            # For crowds pycocotools divides the intersection by the first mask's area. Multiplying by that
            # area gives the exact intersection, and one call is enough for all pairs.
            share = mask_api.iou(
                [first[i][frame] for i in rows], [second[i][frame] for i in columns], [1] * len(columns)
            )
            intersection[np.ix_(rows, columns)] += np.rint(share * first_areas[rows, frame, None])
    union = first_areas.sum(1)[:, None] + second_areas.sum(1) - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
