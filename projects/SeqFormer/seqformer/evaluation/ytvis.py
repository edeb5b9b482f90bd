"""Average precision of tracked instances: the YouTube-VIS protocol, from JSON-like data to figures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seqformer.evaluation.tracks import Track, Tracks, read_tracks
from seqformer.formats.rle import space_time_iou

__all__ = ["METRICS", "average_precision", "evaluate_ytvis"]

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")

_IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALL_POINTS = np.linspace(0.0, 1.0, 101)
_MAX_DETECTIONS = (1, 10, 100)  # of a category in a video
_ALL, _SMALL, _MEDIUM, _LARGE = range(4)
# Pixels, mean over the frames with a mask. Both ends belong to a range.
_AREA_RANGES = ((0.0, 1e10), (0.0, 128.0**2), (128.0**2, 256.0**2), (256.0**2, 1e10))


@dataclass
class _Match:
    """Detections of a category in a video, best score first, matched to the ground truth of an area range."""

    scores: np.ndarray  # (D,)
    matched: np.ndarray  # (thresholds, D)
    ignored: np.ndarray  # (thresholds, D)
    num_truths: int  # that count


def evaluate_ytvis(
    gt: dict[str, Any] | str | Path, results: list[dict[str, Any]] | str | Path
) -> dict[str, Any]:
    """Evaluates results by the official YouTube-VIS protocol (Yang et al., ICCV 2019, section 5).

    It is COCO's with the overlap of two instances taken over space and time: the sum over frames of the
    intersections divided by that of the unions. Crowds are ignored, at the usual overlap.

    Args:
        gt: a YouTube-VIS annotation file, or its content. "areas" of an annotation, if given, decide about
            its area range, as in the official code; otherwise the masks do.
        results: a results.json, or its content: a dict for every instance found, with video_id, category_id,
            score and segmentations (polygons, an RLE or None for every frame).

    Returns:
        percentages by the names of :data:`METRICS`, and AP of every class by name in "per_category". NaN
        where there is nothing to measure.

    Raises:
        InputError: if something is missing or malformed; the message names it.
    """
    return average_precision(read_tracks(gt, results))


def average_precision(tracks: Tracks) -> dict[str, Any]:
    """:func:`evaluate_ytvis` on what is already read."""
    categories = list(tracks.names)
    shape = (len(categories), len(_AREA_RANGES), len(_MAX_DETECTIONS), len(_IOU_THRESHOLDS))
    recall = np.full(shape, np.nan)
    precision = np.full((*shape, len(_RECALL_POINTS)), np.nan)
    for k, category in enumerate(categories):
        keys = [(video, category) for video in sorted(tracks.videos)]
        matches = [
            _match_all_ranges(tracks.detections.get(key, []), tracks.truths.get(key, []))
            for key in keys
            if key in tracks.truths or key in tracks.detections
        ]
        for a in range(len(_AREA_RANGES)):
            for m, max_detections in enumerate(_MAX_DETECTIONS):
                curve = _curve([match[a] for match in matches], max_detections)
                if curve is not None:
                    precision[k, a, m], recall[k, a, m] = curve
    figures = _summary(precision, recall)
    figures["per_category"] = {
        tracks.names[category]: _percent(precision[k, _ALL, -1]) for k, category in enumerate(categories)
    }
    return figures


def _overlaps(detections: list[Track], truths: list[Track]) -> np.ndarray:
    """Space-time IoU (D, G)."""
    first, second = (np.stack([track.areas for track in tracks]) for tracks in (detections, truths))
    return space_time_iou(
        [track.masks for track in detections], [track.masks for track in truths], (first, second)
    )


def _match_all_ranges(detections: list[Track], truths: list[Track]) -> list[_Match]:
    """A match for every area range; ``detections`` and ``truths`` are of one video and category."""
    order = np.argsort([-track.score for track in detections], kind="stable")[: _MAX_DETECTIONS[-1]]
    detections = [detections[d] for d in order]
    overlaps = (
        _overlaps(detections, truths) if detections and truths else np.zeros((len(detections), len(truths)))
    )
    scores = np.asarray([track.score for track in detections])
    found = np.asarray([track.area for track in detections])
    wanted = np.asarray([track.area for track in truths])
    crowd = np.asarray([track.crowd for track in truths], dtype=bool)
    matches = []
    for low, high in _AREA_RANGES:
        out_of_range = crowd | (wanted < low) | (wanted > high)
        matched, ignored = _match(overlaps, crowd, out_of_range)
        ignored |= ~matched & ((found < low) | (found > high))
        matches.append(_Match(scores, matched, ignored, int((~out_of_range).sum())))
    return matches


def _match(overlaps: np.ndarray, crowd: np.ndarray, ignore: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gives each detection, best score first, the free instance that it overlaps most, at all thresholds.

    Instances that count go before ignored ones, the last goes first among equals, and a crowd can be taken
    more than once.

    Returns:
        (thresholds, D): whether a detection is matched, and whether with an ignored instance.
    """
    matched = np.zeros((len(_IOU_THRESHOLDS), len(overlaps)), dtype=bool)
    ignored = np.zeros_like(matched)
    if not overlaps.shape[1]:
        return matched, ignored
    free = np.ones((len(_IOU_THRESHOLDS), overlaps.shape[1]), dtype=bool)
    enough = np.minimum(_IOU_THRESHOLDS, 1 - 1e-10)[:, None]
    for d, overlap in enumerate(overlaps):
        possible = (free | crowd) & (overlap >= enough)
        for group in (~ignore, ignore):
            candidates = np.where(possible & group, overlap, -1.0)
            best = candidates.shape[1] - 1 - candidates[:, ::-1].argmax(axis=1)
            taken = np.flatnonzero((candidates.max(axis=1) >= 0) & ~matched[:, d])
            matched[taken, d] = True
            ignored[taken, d] = ignore[best[taken]]
            free[taken, best[taken]] = False
    return matched, ignored


def _curve(matches: list[_Match], max_detections: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Precision (thresholds, recall points) and final recall (thresholds,); None without instances."""
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


def _summary(precision: np.ndarray, recall: np.ndarray) -> dict[str, Any]:
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
