"""Does attention follow the instance? Temporal weights and sampling points against the ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as mask_api
from scipy.optimize import linear_sum_assignment

from seqformer.formats.rle import space_time_iou
from seqformer.structures import RLE, Trace

__all__ = ["AttentionFigures", "AttentionMeasure"]

_FOUND = 0.5  # least space-time IoU of an instance that the model found


@dataclass
class AttentionFigures:
    """Means over a dataset; arrays (D,) hold a figure for every decoder layer.

    Attributes:
        instances: of the ground truth, in clips in which they are seen.
        found: those among them that the model found; only these are measured.
        partly_hidden: found ones that some frames of the clip show and others do not.
        weight_visible, weight_hidden: mean temporal weight of frames of partly hidden instances, times the
            number of frames: 1 is the weight that all frames would have if they were equal.
        points_inside: share of sampling points inside the instance's box, in frames that show it.
        weight_inside: the same weighted by attention: the share of attention that falls into the box.
    """

    instances: int
    found: int
    partly_hidden: int
    weight_visible: np.ndarray
    weight_hidden: np.ndarray
    points_inside: np.ndarray
    weight_inside: np.ndarray


class AttentionMeasure:
    """Adds up what traces show of annotated instances.

    An instance is found if a traced one has a space-time IoU of 0.5 with it; they are assigned one to one for
    the highest sum. Every frame counts the same, whatever the instance.
    """

    def __init__(self) -> None:
        self.instances = 0
        self.found = 0
        self.partly_hidden = 0
        self._num_layers = 0
        self._visible: list[np.ndarray] = []  # each (frames, D)
        self._hidden: list[np.ndarray] = []
        self._points: list[np.ndarray] = []
        self._attention: list[np.ndarray] = []

    def update(self, trace: Trace, truths: Sequence[Sequence[RLE | None]]) -> None:
        """Takes in a clip.

        Args:
            trace: with masks.
            truths: G instances times T masks of the frames that were traced, at the size of the trace's
                masks; None where an instance is not seen.
        """
        assert trace.segmentations is not None, "the trace must have masks"
        self._num_layers = trace.num_layers
        truths = [masks for masks in truths if any(masks)]
        self.instances += len(truths)
        overlaps = space_time_iou(trace.segmentations, truths)
        for i, g in zip(*linear_sum_assignment(-overlaps), strict=True):
            if overlaps[i, g] >= _FOUND:
                self.found += 1
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
        """What was measured; NaN where nothing was."""
        return AttentionFigures(
            self.instances,
            self.found,
            self.partly_hidden,
            *map(self._mean, (self._visible, self._hidden, self._points, self._attention)),
        )

    def _mean(self, parts: list[np.ndarray]) -> np.ndarray:
        return np.concatenate(parts).mean(0) if parts else np.full(self._num_layers, np.nan)
