"""HOTA, CLEAR and identity metrics: how well instances are detected and how well they keep their ids.

The definitions are those of TrackEval (Luiten and Hoffhues, 2020) on its YouTubeVIS dataset: categories are
evaluated separately, masks may overlap, and crowds count as ordinary instances. Scores are used only to leave
results out, see :func:`count_tracklets`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from seqformer.errors import InputError
from seqformer.evaluation.tracklets import EvalTracklet, EvalTracklets, Key, read_tracklets

__all__ = [
    "TRACKING_METRICS",
    "IDSwitches",
    "TrackingCounts",
    "check_score_threshold",
    "class_average",
    "count_id_switches",
    "count_tracklets",
]

TRACKING_METRICS = {
    "HOTA": ("HOTA", "DetA", "AssA"),
    "CLEAR": ("MOTA", "IDSW"),
    "Identity": ("IDF1", "IDP", "IDR"),
}
"""Names of the figures by family. All are percentages, except IDSW, the number of ID switches."""

_HOTA_THRESHOLDS = np.arange(0.05, 0.99, 0.05)
_IOU_THRESHOLD = 0.5  # of CLEAR and identity metrics
_KEPT = 1000.0  # bonus of a pair that was matched in the frame before: more than any sum of IoU
_EPS = np.finfo(float).eps


def _zeros() -> np.ndarray:
    return np.zeros(len(_HOTA_THRESHOLDS))


@dataclass
class TrackingCounts:
    """What the metrics are computed from. Counts of videos and categories can be added.

    A detection is a mask in one frame. Arrays (A,) have one value per IoU threshold of HOTA.

    Attributes:
        truths, predictions: number of ground-truth and predicted detections.
        hota_matches: (A,) matched detections.
        association: (A,) sum of the association score over matched detections.
        clear_matches: matched detections of CLEAR.
        switches: ID switches: an instance is matched with a different tracklet than the last time.
        identity_matches: detections that agree if every instance is assigned one tracklet for the video.
        instances: number of ground-truth instances with a mask.
        covered: number of these that CLEAR matches in at least one frame.
    """

    truths: int = 0
    predictions: int = 0
    hota_matches: np.ndarray = field(default_factory=_zeros)
    association: np.ndarray = field(default_factory=_zeros)
    clear_matches: int = 0
    switches: int = 0
    identity_matches: int = 0
    instances: int = 0
    covered: int = 0

    def __add__(self, other: TrackingCounts) -> TrackingCounts:
        return TrackingCounts(*(getattr(self, name) + getattr(other, name) for name in vars(self)))

    @property
    def empty(self) -> bool:
        """Whether there is neither ground truth nor a result."""
        return not self.truths and not self.predictions

    def figures(self, families: Iterable[str] = tuple(TRACKING_METRICS)) -> dict[str, float]:
        """Returns the metrics of the given families by name; 0 where there is nothing to measure.

        Sources: Luiten et al., "HOTA", IJCV 2021; Bernardin and Stiefelhagen, "CLEAR MOT", 2008; Ristani et
        al., "Performance Measures and a Data Set for Multi-Target, Multi-Camera Tracking", 2016.
        """
        detection = self.hota_matches / np.maximum(1, self.truths + self.predictions - self.hota_matches)
        association = self.association / np.maximum(1, self.hota_matches)
        wrong = self.predictions - self.clear_matches
        figures = {
            "HOTA": np.sqrt(detection * association).mean(),
            "DetA": detection.mean(),
            "AssA": association.mean(),
            "MOTA": (self.clear_matches - wrong - self.switches) / max(1, self.truths),
            "IDF1": self.identity_matches / max(1.0, 0.5 * (self.truths + self.predictions)),
            "IDP": self.identity_matches / max(1, self.predictions),
            "IDR": self.identity_matches / max(1, self.truths),
        }
        percent = {name: 100 * float(value) for name, value in figures.items()}
        percent["IDSW"] = float(self.switches)
        return {name: percent[name] for family in families for name in TRACKING_METRICS[family]}


@dataclass
class IDSwitches:
    """Counts over a dataset.

    Attributes:
        switches: how often an instance is matched with a different result than the last time.
        covered: number of instances that are matched in at least one frame.
        instances: number of ground-truth instances with a mask.
    """

    switches: int = 0
    covered: int = 0
    instances: int = 0


def count_id_switches(
    gt: dict[str, Any] | str | Path,
    results: list[dict[str, Any]] | str | Path,
    score_threshold: float = 0.0,
) -> IDSwitches:
    """Counts how often the result that an instance is matched with changes over time.

    AP does not tell an ID switch from a missed instance; this does. In a frame, results and instances of a
    category are matched one to one if their IoU is at least 0.5: pairs of the frame before first, then for
    the highest sum of IoU. If an instance is matched with a different result than the last time, even after a
    gap, that is an ID switch. This is IDSW of TrackEval's CLEAR metrics.

    Args:
        gt, results: see :func:`seqformer.evaluation.evaluate_ytvis`.
        score_threshold: results with lower scores are left out.

    Raises:
        InputError: if something is missing or malformed, or the threshold is not from 0 to 1.
    """
    counts = count_tracklets(read_tracklets(gt, results), score_threshold).values()
    total = sum(counts, TrackingCounts())
    return IDSwitches(total.switches, total.covered, total.instances)


def count_tracklets(tracklets: EvalTracklets, score_threshold: float = 0.0) -> dict[Key, TrackingCounts]:
    """Matches results with the ground truth, separately for every video and category.

    Args:
        tracklets: ground truth and results.
        score_threshold: results with lower scores are left out, in all frames. 0 keeps all, as TrackEval.

    Raises:
        InputError: if the threshold is not from 0 to 1.
    """
    check_score_threshold(score_threshold)
    return {
        key: _count(tracklets, key, score_threshold)
        for key in tracklets.truths.keys() | tracklets.predictions.keys()
    }


def check_score_threshold(score_threshold: float) -> None:
    """Raises an InputError if the threshold is not from 0 to 1."""
    if not 0 <= score_threshold <= 1:
        raise InputError(f"the score threshold must be from 0 to 1, not {score_threshold}")


def class_average(counts: Iterable[TrackingCounts], families: Iterable[str]) -> dict[str, float]:
    """Returns the mean of every metric over categories; ID switches are summed.

    As in TrackEval, a category without ground truth and results has the value 0 and counts.

    Args:
        counts: the sum over videos for each category.
        families: see :data:`TRACKING_METRICS`.
    """
    rows = [count.figures(families) for count in counts]
    average = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    if "IDSW" in average:
        average["IDSW"] = sum(row["IDSW"] for row in rows)
    return average


def _count(tracklets: EvalTracklets, key: Key, score_threshold: float) -> TrackingCounts:
    """Counts one video and category."""
    truths, truth_visible = _visible(tracklets.truths.get(key, []), -np.inf)
    predictions, visible = _visible(tracklets.predictions.get(key, []), score_threshold)
    truth_lengths, lengths = truth_visible.sum(1), visible.sum(1)
    counts = TrackingCounts(int(truth_lengths.sum()), int(lengths.sum()), instances=len(truths))
    if not len(truths) or not len(predictions):
        return counts

    overlaps = tracklets.overlaps(key)[:, truths[:, None], predictions]  # T, G, D
    frames = []  # (rows, columns, IoU) of the tracklets that are visible in a frame
    agreement = np.zeros(overlaps.shape[1:])
    matcher = _ClearMatcher(len(truths))
    for frame in np.flatnonzero(truth_visible.any(0) & visible.any(0)).tolist():
        rows, columns = truth_visible[:, frame].nonzero()[0], visible[:, frame].nonzero()[0]
        pairs = rows[:, None], columns
        iou = overlaps[frame][pairs]
        frames.append((rows, columns, iou))
        sums = iou.sum(0) + iou.sum(1)[:, None] - iou
        agreement[pairs] += np.divide(iou, sums, out=np.zeros_like(iou), where=sums > _EPS)
        matcher.match(rows, columns, iou)
    counts.clear_matches, counts.switches = matcher.matches, matcher.switches
    counts.covered = int((matcher.last >= 0).sum())

    # The best assignment for whole videos has the fewest detections that are not matched.
    above = (overlaps >= _IOU_THRESHOLD).sum(0)
    counts.identity_matches = int(above[linear_sum_assignment(-above)].sum())

    # HOTA prefers pairs that agree over the whole video. The matching is the same for all IoU thresholds.
    both = truth_lengths[:, None] + lengths
    alignment = agreement / (both - agreement)
    matched = np.zeros((len(truths), len(predictions), len(_HOTA_THRESHOLDS)))
    for rows, columns, iou in frames:
        g, d = linear_sum_assignment(-alignment[rows[:, None], columns] * iou)
        matched[rows[g], columns[d]] += iou[g, d, None] >= _HOTA_THRESHOLDS - _EPS
    counts.hota_matches = matched.sum((0, 1))
    counts.association = (matched**2 / (both[..., None] - matched)).sum((0, 1))
    return counts


def _visible(tracklets: list[EvalTracklet], score_threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the numbers (N,) of the tracklets that count, and (N, T), whether they have a mask."""
    numbers = [
        number
        for number, tracklet in enumerate(tracklets)
        if tracklet.score >= score_threshold and any(tracklet.masks)
    ]
    visible = [[mask is not None for mask in tracklets[number].masks] for number in numbers]
    return np.array(numbers, dtype=int), np.array(visible, dtype=bool, ndmin=2)


class _ClearMatcher:
    """Matches the detections of one frame after the other, as CLEAR MOT does."""

    def __init__(self, num_truths: int) -> None:
        self.matches = 0
        self.switches = 0
        self.last = np.full(num_truths, -1)  # prediction that an instance was last matched with
        self._previous = self.last.copy()  # the same in the last frame with ground truth and predictions

    def match(self, rows: np.ndarray, columns: np.ndarray, iou: np.ndarray) -> None:
        """Adds a frame: the visible instances and predictions, and their IoU."""
        value = iou + _KEPT * (self._previous[rows][:, None] == columns)
        value[iou < _IOU_THRESHOLD - _EPS] = 0
        g, d = linear_sum_assignment(-value)
        above = value[g, d] > _EPS
        g, d = rows[g[above]], columns[d[above]]
        self.matches += len(g)
        self.switches += int(((self.last[g] >= 0) & (self.last[g] != d)).sum())
        self.last[g] = d
        self._previous[:] = -1
        self._previous[g] = d
