"""ID switches: how often the id of a tracked instance changes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_api
from scipy.optimize import linear_sum_assignment

from seqformer.errors import InputError
from seqformer.evaluation.tracklets import EvalTracklet, EvalTracklets, read_tracklets

__all__ = ["SCORE_THRESHOLD", "IDSwitches", "count_id_switches", "id_switches"]

SCORE_THRESHOLD = 0.3
_IOU_THRESHOLD = 0.5


@dataclass
class IDSwitches:
    """Counts over a dataset.

    Attributes:
        switches: how often an instance is covered by a different result than before.
        covered: number of instances that a result covers in at least one frame.
        instances: number of ground-truth instances, without crowds.
    """

    switches: int = 0
    covered: int = 0
    instances: int = 0


def count_id_switches(
    gt: dict[str, Any] | str | Path,
    results: list[dict[str, Any]] | str | Path,
    score_threshold: float = SCORE_THRESHOLD,
) -> IDSwitches:
    """Counts how often the result that covers an instance changes over time.

    AP does not tell an ID switch from a missed instance; this does. The count is the mismatches of CLEAR MOT
    (Bernardin and Stiefelhagen, 2008), with masks. In a frame, a result covers an instance of its category if
    their IoU is at least 0.5. Pairs of earlier frames are kept while this holds; the others are assigned one
    to one for the highest sum of IoU. If an instance is covered by a different result than the last one, even
    after a gap, that is an ID switch.

    Args:
        gt, results: see :func:`seqformer.evaluation.evaluate_ytvis`.
        score_threshold: results with lower scores are ignored.

    Raises:
        InputError: if something is missing or malformed, or the threshold is not from 0 to 1.
    """
    return id_switches(read_tracklets(gt, results), score_threshold)


def id_switches(tracklets: EvalTracklets, score_threshold: float = SCORE_THRESHOLD) -> IDSwitches:
    """:func:`count_id_switches` of data that are already read."""
    if not 0 <= score_threshold <= 1:
        raise InputError(f"the score threshold must be from 0 to 1, not {score_threshold}")
    total = IDSwitches()
    for key, truths in tracklets.truths.items():
        truths = [truth for truth in truths if not truth.crowd]
        predicted = [p for p in tracklets.predictions.get(key, ()) if p.score >= score_threshold]
        last = _count_switches(truths, predicted, total) if truths and predicted else {}
        total.covered += len(last)
        total.instances += len(truths)
    return total


def _count_switches(
    truths: list[EvalTracklet], predicted: list[EvalTracklet], total: IDSwitches
) -> dict[int, int]:
    """Adds the ID switches of a video and category; returns the last result that covered each instance."""
    last: dict[int, int] = {}
    for frame in range(len(truths[0].masks)):
        overlaps = _frame_overlaps(truths, predicted, frame)
        covers = overlaps >= _IOU_THRESHOLD
        kept = {g: d for g, d in last.items() if covers[g, d]}
        # Two instances may have had the same result in different frames. The higher IoU keeps it.
        for g, d in sorted(kept.items(), key=lambda pair: -overlaps[pair]):
            if covers[g, d]:
                covers[g], covers[:, d] = False, False
            else:
                del kept[g]
        assigned = linear_sum_assignment(-overlaps * covers)
        for g, d in zip(*(indices.tolist() for indices in assigned), strict=True):
            if covers[g, d]:
                total.switches += g in last and last[g] != d
                kept[g] = d
        last |= kept
    return last


def _frame_overlaps(truths: list[EvalTracklet], predicted: list[EvalTracklet], frame: int) -> np.ndarray:
    """Returns the IoU (G, D) in one frame."""
    overlaps = np.zeros((len(truths), len(predicted)))
    rows = [g for g, tracklet in enumerate(truths) if tracklet.areas[frame]]
    columns = [d for d, tracklet in enumerate(predicted) if tracklet.areas[frame]]
    if rows and columns:
        overlaps[np.ix_(rows, columns)] = mask_api.iou(
            [truths[g].masks[frame] for g in rows],
            [predicted[d].masks[frame] for d in columns],
            [0] * len(columns),
        )
    return overlaps
