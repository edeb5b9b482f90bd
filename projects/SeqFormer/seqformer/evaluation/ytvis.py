"""Average precision of tracklets by the YouTube-VIS protocol."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from seqformer.evaluation.tracklets import EvalTracklet, EvalTracklets, Key, read_tracklets
from seqformer.formats.rle import space_time_iou

__all__ = ["METRICS", "PrecisionFigures", "average_precision", "evaluate_ytvis"]

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")

_IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALL_POINTS = np.linspace(0.0, 1.0, 101)
_MAX_DETECTIONS = (1, 10, 100)  # per category and video
_ALL, _SMALL, _MEDIUM, _LARGE = range(4)
# Pixels, mean over the frames with a mask. Both ends belong to a range.
_AREA_RANGES = ((0.0, 1e10), (0.0, 128.0**2), (128.0**2, 256.0**2), (256.0**2, 1e10))


@dataclass
class _Match:
    """Predictions of a category in a video, best first, matched with the ground truth of an area range."""

    scores: np.ndarray  # (D,)
    matched: np.ndarray  # (thresholds, D)
    ignored: np.ndarray  # (thresholds, D)
    num_truths: int  # without ignored ones


def evaluate_ytvis(
    gt: dict[str, Any] | str | Path, results: list[dict[str, Any]] | str | Path
) -> dict[str, Any]:
    """Evaluates results by the official YouTube-VIS protocol (Yang et al., ICCV 2019, section 5).

    The protocol is COCO's with space-time IoU: the intersections summed over all frames, divided by the
    summed unions. Crowds are ignored, with the same IoU as other instances. Ground truth without a mask in
    any frame counts, as a small instance that no result can match, and so does a result without a mask, as
    false.

    Args:
        gt: a YouTube-VIS annotation file, or its content. If an annotation has "areas", they determine its
            area range, as in the official code; otherwise the masks do.
        results: a results.json, or its content: a dict for each predicted instance, with video_id,
            category_id, score and segmentations (polygons, an RLE or None for each frame).

    Returns:
        The :data:`METRICS` by name, in percent, and in "per_category" the AP of each class by name. NaN if
        there is nothing to measure.

    Raises:
        InputError: if something is missing or malformed; the message names it.
    """
    tracklets = read_tracklets(gt, results)
    figures = average_precision(tracklets)
    per_category = {name: figures.categories[category]["AP"] for category, name in tracklets.names.items()}
    return figures.overall | {"per_category": per_category}


@dataclass
class PrecisionFigures:
    """The :data:`METRICS` by name, in percent; NaN if there is nothing to measure.

    Attributes:
        overall: mean over categories.
        categories: by category id.
        videos: by video id, for each video as if it was the whole dataset; empty unless asked for.
    """

    overall: dict[str, float]
    categories: dict[int, dict[str, float]] = field(default_factory=dict)
    videos: dict[int, dict[str, float]] = field(default_factory=dict)


def average_precision(tracklets: EvalTracklets, per_video: bool = False) -> PrecisionFigures:
    """:func:`evaluate_ytvis` of data that are already read.

    Args:
        tracklets: ground truth and results.
        per_video: compute the metrics for every video as well.
    """
    matches: dict[Key, list[_Match]] = {
        key: _match_all_ranges(tracklets, key)
        for key in sorted(tracklets.truths.keys() | tracklets.predictions.keys())
    }
    by_category: dict[int, list[list[_Match]]] = {category: [] for category in tracklets.names}
    by_video: dict[int, list[list[list[_Match]]]] = {video: [] for video in tracklets.videos}
    for (video, category), match in matches.items():
        by_category[category].append(match)
        by_video[video].append([match])
    curves = {category: _curves([own]) for category, own in by_category.items()}
    figures = PrecisionFigures(
        _summary(*(np.concatenate(parts) for parts in zip(*curves.values(), strict=True))),
        {category: _summary(*curve) for category, curve in curves.items()},
    )
    if per_video:
        figures.videos = {video: _summary(*_curves(own)) for video, own in by_video.items()}
    return figures


def _curves(categories: Sequence[list[list[_Match]]]) -> tuple[np.ndarray, np.ndarray]:
    """Returns precision and recall of K categories, each given by the matches of its videos.

    Returns:
        (K, area ranges, limits, thresholds, recall points) and (K, area ranges, limits, thresholds); NaN for
        categories without instances in a range.
    """
    shape = (len(categories), len(_AREA_RANGES), len(_MAX_DETECTIONS), len(_IOU_THRESHOLDS))
    recall = np.full(shape, np.nan)
    precision = np.full((*shape, len(_RECALL_POINTS)), np.nan)
    for k, matches in enumerate(categories):
        for a in range(len(_AREA_RANGES)):
            for m, max_detections in enumerate(_MAX_DETECTIONS):
                curve = _curve([match[a] for match in matches], max_detections)
                if curve is not None:
                    precision[k, a, m], recall[k, a, m] = curve
    return precision, recall


def _match_all_ranges(tracklets: EvalTracklets, key: Key) -> list[_Match]:
    """Matches predictions and ground truth of a video and category, for every area range."""
    truths, found = tracklets.truths.get(key, []), tracklets.predictions.get(key, [])
    order = np.argsort([-tracklet.score for tracklet in found], kind="stable")[: _MAX_DETECTIONS[-1]]
    predictions = [found[d] for d in order]
    overlaps = np.zeros((len(predictions), len(truths)))
    if predictions and truths:
        parts = predictions, truths
        first, second = ([tracklet.masks for tracklet in part] for part in parts)
        areas, true_areas = (np.stack([tracklet.areas for tracklet in part]) for part in parts)
        overlaps = space_time_iou(
            first, second, (areas, true_areas), tracklets.overlaps(key)[..., order].swapaxes(1, 2)
        )
    scores = np.asarray([tracklet.score for tracklet in predictions])
    crowd = np.asarray([tracklet.crowd for tracklet in truths], dtype=bool)
    ignore = crowd | _out_of_range(truths)
    matched, ignored = _match(overlaps, crowd, ignore)
    ignored |= ~matched & _out_of_range(predictions)[:, None]
    counted = (~ignore).sum(1).tolist()
    return [_Match(scores, *part) for part in zip(matched, ignored, counted, strict=True)]


def _out_of_range(tracklets: list[EvalTracklet]) -> np.ndarray:
    """Returns (A, N): whether the area of a tracklet is outside of an area range."""
    areas = np.asarray([tracklet.area for tracklet in tracklets])
    low, high = np.asarray(_AREA_RANGES).T[..., None]
    return (areas < low) | (areas > high)


def _match(overlaps: np.ndarray, crowd: np.ndarray, ignore: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Matches each prediction, best first, with the free instance of highest IoU, at all IoU thresholds.

    Ignored instances are matched only if no other matches, the last of equals is preferred, and a crowd can
    be matched more than once.

    Args:
        overlaps: (D, G).
        crowd: (G,).
        ignore: (A, G), for every area range.

    Returns:
        (A, thresholds, D): whether a prediction is matched, and whether with an ignored instance.
    """
    shape = len(ignore), len(_IOU_THRESHOLDS)
    matched = np.zeros((*shape, len(overlaps)), dtype=bool)
    ignored = np.zeros_like(matched)
    if not overlaps.shape[1]:
        return matched, ignored
    free = np.ones((*shape, overlaps.shape[1]), dtype=bool)
    iou_thresholds = np.minimum(_IOU_THRESHOLDS, 1 - 1e-10)[:, None]
    for d, overlap in enumerate(overlaps):
        possible = (free | crowd) & (overlap >= iou_thresholds)
        if not possible.any():
            continue
        for group in (~ignore, ignore):
            candidates = np.where(possible & group[:, None], overlap, -1.0)
            best = candidates.shape[2] - 1 - candidates[..., ::-1].argmax(axis=2)
            taken = ((candidates.max(axis=2) >= 0) & ~matched[..., d]).nonzero()
            matched[(*taken, d)] = True
            ignored[(*taken, d)] = ignore[taken[0], best[taken]]
            free[(*taken, best[taken])] = False
    return matched, ignored


def _curve(matches: list[_Match], max_detections: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns precision (thresholds, recall points) and recall (thresholds,); None without instances."""
    num_truths = sum(match.num_truths for match in matches)
    if num_truths == 0:
        return None
    scores = np.concatenate([match.scores[:max_detections] for match in matches])
    order = np.argsort(-scores, kind="stable")
    matched = np.concatenate([match.matched[:, :max_detections] for match in matches], axis=1)[:, order]
    counts = ~np.concatenate([match.ignored[:, :max_detections] for match in matches], axis=1)[:, order]
    right = np.cumsum(matched & counts, axis=1).astype(float)
    wrong = np.cumsum(~matched & counts, axis=1).astype(float)
    recall = right / num_truths
    precision = right / (right + wrong + np.spacing(1))
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    sampled = np.zeros((len(_IOU_THRESHOLDS), len(_RECALL_POINTS)))
    for t in range(len(_IOU_THRESHOLDS)):
        places = np.searchsorted(recall[t], _RECALL_POINTS, side="left")
        reached = places < len(order)
        sampled[t, reached] = precision[t, places[reached]]
    return sampled, recall[:, -1] if len(order) else np.zeros(len(_IOU_THRESHOLDS))


def _summary(precision: np.ndarray, recall: np.ndarray) -> dict[str, float]:
    t50, t75 = 0, 5
    values = [
        precision[:, _ALL, -1],
        precision[:, _ALL, -1, t50],
        precision[:, _ALL, -1, t75],
        *(precision[:, area, -1] for area in (_SMALL, _MEDIUM, _LARGE)),
        *(recall[:, _ALL, m] for m in range(len(_MAX_DETECTIONS))),
        *(recall[:, area, -1] for area in (_SMALL, _MEDIUM, _LARGE)),
    ]
    return {name: _percent(value) for name, value in zip(METRICS, values, strict=True)}


def _percent(values: np.ndarray) -> float:
    measured = values[~np.isnan(values)]
    return 100.0 * float(measured.mean()) if measured.size else math.nan
