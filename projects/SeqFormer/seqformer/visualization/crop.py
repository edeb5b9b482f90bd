"""Crops the frames of a figure to windows around instances, with their masks and sampling points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from seqformer.formats.rle import encode_masks
from seqformer.structures import RLE, Trace
from seqformer.visualization.figures import Frames
from seqformer.visualization.rows import Row, ShownInstance
from seqformer.visualization.visualizer import Box, mask_bounds

__all__ = ["crop_frames", "crop_row", "crop_trace", "windows"]

_MARGIN = 0.25  # at each side, of the longer side of what is shown
_LEAST = 48  # pixels per side of a window


def windows(rows: Sequence[Row], frames: Sequence[int], size: tuple[int, int]) -> list[Box]:
    """Returns a window around the instances in each frame, all of the same size and inside the frame.

    A window's centre is that of the instances. In frames without any, it is that of the nearest frame with
    some.

    Args:
        rows: the instances.
        frames: indices of the frames into the instances' masks.
        size: height and width of the frames, pixels.
    """
    bounds = [_bounds([instance for row in rows for instance in row.visible(t)], t) for t in frames]
    seen = [index for index, box in enumerate(bounds) if box is not None]
    height, width = size
    if not seen:
        return [Box(0, 0, width, height)] * len(frames)
    shown = [box for box in bounds if box is not None]
    extent = np.array([(box.bottom - box.top, box.right - box.left) for box in shown]).max(0)
    extent = np.maximum(extent + round(2 * _MARGIN * extent.max()), extent.max() // 2)
    rows_high, columns_wide = (int(min(max(e, _LEAST), s)) for e, s in zip(extent, size, strict=True))
    result = []
    for index in range(len(frames)):
        box = shown[int(np.argmin([abs(index - other) for other in seen]))]
        top = min(max((box.top + box.bottom - rows_high) // 2, 0), height - rows_high)
        left = min(max((box.left + box.right - columns_wide) // 2, 0), width - columns_wide)
        result.append(Box(left, top, left + columns_wide, top + rows_high))
    return result


def _bounds(instances: Sequence[ShownInstance], frame: int) -> Box | None:
    boxes = [box for box in (mask_bounds(i.mask(frame)) for i in instances) if box is not None]
    if not boxes:
        return None
    left, top, right, bottom = zip(*boxes, strict=True)
    return Box(min(left), min(top), max(right), max(bottom))


def crop_frames(frames: Frames, boxes: Sequence[Box]) -> Frames:
    """Returns the parts of the frames inside their windows."""
    pictures = [p[b.top : b.bottom, b.left : b.right] for p, b in zip(frames.pictures, boxes, strict=True)]
    return replace(frames, pictures=pictures)


def crop_row(row: Row, frames: Sequence[int], boxes: Sequence[Box]) -> Row:
    """Returns the row's instances with masks inside the windows. Other frames have no masks then."""
    instances = []
    for instance in row.instances:
        masks: list[RLE | None] = [None] * len(instance.masks)
        for t, box in zip(frames, boxes, strict=True):
            if instance.masks[t] is not None:
                part = instance.mask(t)[box.top : box.bottom, box.left : box.right]
                masks[t] = encode_masks(part[None].astype(bool))[0]
        instances.append(replace(instance, masks=masks))
    return Row(row.name, instances)


def crop_trace(trace: Trace, boxes: Sequence[Box], size: tuple[int, int]) -> Trace:
    """Returns the trace with coordinates normalised to each frame's window.

    Args:
        boxes: T windows.
        size: height and width of the frames, pixels.
    """
    height, width = size
    corner = np.array([(box.left / width, box.top / height) for box in boxes])  # T, 2
    extent = np.array([((b.right - b.left) / width, (b.bottom - b.top) / height) for b in boxes])
    points = trace.sampling_locations
    shape = (1, len(boxes), *[1] * (points.ndim - 3), 2)
    boxes_xy, boxes_wh = trace.boxes[..., :2], trace.boxes[..., 2:]
    return replace(
        trace,
        sampling_locations=(points - corner.reshape(shape)) / extent.reshape(shape),
        reference_points=(trace.reference_points - corner[:, None]) / extent[:, None],
        boxes=np.concatenate(
            ((boxes_xy - corner[:, None]) / extent[:, None], boxes_wh / extent[:, None]), axis=-1
        ),
    )
