"""Draws training clips after sampling and augmentation, with masks, boxes and ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from detectron2.structures import Instances

from seqformer.visualization.visualizer import instance_color

__all__ = ["draw_clip"]

_GAP = 4  # pixels between frames
_OPACITY = 0.4


def draw_clip(clip: dict[str, Any], class_names: Sequence[str], image_format: str = "RGB") -> np.ndarray:
    """Draws the frames of a clip side by side.

    Args:
        clip: image and instances from a training mapper, see seqformer.data.YTVISDatasetMapper.
        class_names: names by class.
        image_format: channel order of the clip, "RGB" or "BGR".

    Returns:
        (h, T * (w + gap) - gap, 3) uint8 RGB.
    """
    columns = []
    for image, instances in zip(clip["image"], clip["instances"], strict=True):
        frame = image.numpy().transpose(1, 2, 0)
        frame = np.ascontiguousarray(frame[..., ::-1] if image_format == "BGR" else frame)
        _draw_instances(frame, instances, class_names)
        columns += [frame, np.full((len(frame), _GAP, 3), 255, dtype=np.uint8)]
    return np.concatenate(columns[:-1], axis=1)


def _draw_instances(frame: np.ndarray, instances: Instances, class_names: Sequence[str]) -> None:
    """Draws visible instances on a frame, in place: tinted masks, then boxes and labels such as "#2 dog"."""
    masks = instances.gt_masks.tensor.numpy()
    visible = [n for n, identity in enumerate(instances.gt_ids.tolist()) if identity >= 0]
    for n in visible:
        tint = _OPACITY * np.array(instance_color(n))
        frame[masks[n]] = np.rint((1 - _OPACITY) * frame[masks[n]] + tint).astype(np.uint8)
    scale = max(0.35, min(frame.shape[:2]) / 900)
    for n in visible:
        left, top, right, bottom = instances.gt_boxes.tensor[n].int().tolist()
        color = instance_color(n)
        cv2.rectangle(frame, (left, top), (right - 1, bottom - 1), color, 1)
        label = f"#{n} {class_names[instances.gt_classes[n]]}"
        size, below = cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
        place = (left, max(top - below, size[1]))
        cv2.rectangle(
            frame, (place[0], place[1] - size[1]), (place[0] + size[0], place[1] + below), color, -1
        )
        cv2.putText(frame, label, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (16, 16, 16), 1, cv2.LINE_AA)
