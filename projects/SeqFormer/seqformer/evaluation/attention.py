"""Measures whether attention follows the instance: compares weights and points with the ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as mask_api
from scipy.optimize import linear_sum_assignment

from seqformer.formats.rle import space_time_iou
from seqformer.structures import RLE, Trace

__all__ = ["AttentionFigures", "AttentionMeasure"]

_IOU_THRESHOLD = 0.5  # space-time, of a predicted instance and the ground truth


@dataclass
class AttentionFigures:
    """Means over a dataset. Arrays (D,) have one value per decoder layer.

    Attributes:
        instances: number of visible ground-truth instances, per clip.
        predicted: number of these that are predicted. Only these are measured.
        partly_hidden: number of predicted ones that are visible in some frames of the clip only.
        weight_visible, weight_hidden: mean temporal weight of frames in which partly hidden instances are
            visible or not, times the number of frames. Equal weights are 1.
        points_inside: fraction of sampling points inside the instance's box, in frames where it is visible.
        weight_inside: fraction of attention inside the box.
    """

    instances: int
    predicted: int
    partly_hidden: int
    weight_visible: np.ndarray
    weight_hidden: np.ndarray
    points_inside: np.ndarray
    weight_inside: np.ndarray


class AttentionMeasure:
    """Accumulates attention figures over clips.

    Traced instances are assigned one to one to the ground truth, for the highest sum of space-time IoU. A
    pair counts if its IoU is at least 0.5. All frames have the same weight, whatever the instance.
    """

    def __init__(self) -> None:
        self.instances = 0
        self.predicted = 0
        self.partly_hidden = 0
        self._num_layers = 0
        self._visible: list[np.ndarray] = []  # each (frames, D)
        self._hidden: list[np.ndarray] = []
        self._points: list[np.ndarray] = []
        self._attention: list[np.ndarray] = []

    def update(self, trace: Trace, truths: Sequence[Sequence[RLE | None]]) -> None:
        """Adds a clip.

        Args:
            trace: a trace with masks.
            truths: T ground-truth masks of G instances, for the traced frames and at the size of the
                trace's masks; None where an instance is not visible.
        """
        assert trace.segmentations is not None, "the trace must have masks"
        self._num_layers = trace.num_layers
        truths = [masks for masks in truths if any(masks)]
        self.instances += len(truths)
        overlaps = space_time_iou(trace.segmentations, truths)
        for i, g in zip(*linear_sum_assignment(-overlaps), strict=True):
            if overlaps[i, g] >= _IOU_THRESHOLD:
                self.predicted += 1
                self._add(trace, trace.queries[i], truths[g])

    def _add(self, trace: Trace, query: int, masks: Sequence[RLE | None]) -> None:
        present = [mask for mask in masks if mask is not None]
        visible = np.array([mask is not None for mask in masks])
        weights = trace.temporal_weights[:, :, query].T * trace.num_frames  # T, D
        if not visible.all():
            self.partly_hidden += 1
            self._visible.append(weights[visible])
            self._hidden.append(weights[~visible])
        frames = np.flatnonzero(visible)
        height, width = present[0]["size"]
        boxes = mask_api.toBbox(present) / (width, height, width, height)  # xywh
        low, high = (corner[:, None, None, None] for corner in (boxes[:, :2], boxes[:, :2] + boxes[:, 2:]))
        locations = trace.sampling_locations[:, frames, query]  # D, frames, M, L, P, 2
        inside = ((locations >= low) & (locations <= high)).all(-1)
        attention = trace.attention_weights[:, frames, query]
        self._points.append(inside.mean((2, 3, 4)).T)
        self._attention.append((inside * attention).sum((3, 4)).mean(2).T)

    def figures(self) -> AttentionFigures:
        """Returns the means; NaN where nothing was measured."""
        return AttentionFigures(
            self.instances,
            self.predicted,
            self.partly_hidden,
            *map(self._mean, (self._visible, self._hidden, self._points, self._attention)),
        )

    def _mean(self, parts: list[np.ndarray]) -> np.ndarray:
        return np.concatenate(parts).mean(0) if parts else np.full(self._num_layers, np.nan)
