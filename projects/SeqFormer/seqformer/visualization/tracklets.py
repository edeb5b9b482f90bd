"""Draws tracklets on the frames of a video."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from pycocotools import mask as mask_codec

from seqformer.structures import FrameInstance, Tracklet
from seqformer.visualization.visualizer import draw_instances

__all__ = ["draw_frame", "draw_tracklets"]


def draw_frame(
    frame: np.ndarray, instances: Sequence[FrameInstance], class_names: Mapping[int, str] | Sequence[str]
) -> np.ndarray:
    """Draws instances on one frame with :func:`draw_instances`.

    Args:
        frame: (H, W, 3) uint8 RGB; it is not modified.
        instances: the instances to draw.
        class_names: names by label.

    Returns:
        (H, W, 3) uint8 RGB; the frame itself if there are no instances.
    """
    if not instances:
        return frame
    masks = mask_codec.decode([instance.mask for instance in instances])
    return draw_instances(
        frame,
        masks.view(bool).transpose(2, 0, 1),
        [instance.instance_id for instance in instances],
        [class_names[instance.label] for instance in instances],
        [instance.score for instance in instances],
    )


def draw_tracklets(
    frames: Iterable[np.ndarray],
    tracklets: Sequence[Tracklet],
    class_names: Mapping[int, str] | Sequence[str],
) -> Iterator[np.ndarray]:
    """Draws tracklets on the frames of their video.

    Args:
        frames: the T frames of the video, (H, W, 3) uint8 RGB.
        tracklets: the tracklets to draw.
        class_names: names by label.

    Yields:
        T frames (H, W, 3) uint8 RGB.

    Examples:
        >>> with open_source("street.mp4") as video, open_writer("drawn.mp4", video) as writer:
        ...     for frame in draw_tracklets(video, result.tracklets, ["person"]):
        ...         writer.write(frame)
    """
    for t, frame in enumerate(frames):
        visible = [
            FrameInstance(tracklet.instance_id, tracklet.label, tracklet.score, mask)
            for tracklet in tracklets
            if (mask := tracklet.segmentations[t]) is not None
        ]
        yield draw_frame(frame, visible, class_names)
