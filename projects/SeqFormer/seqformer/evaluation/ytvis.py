"""Average precision of tracked instances: the YouTube-VIS protocol, from JSON-like data to figures."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as mask_api

from seqformer.data.rle import to_rle
from seqformer.errors import InputError
from seqformer.structures import RLE

__all__ = ["METRICS", "evaluate_ytvis"]

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")

_IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALL_POINTS = np.linspace(0.0, 1.0, 101)
_MAX_DETECTIONS = (1, 10, 100)  # of a category in a video
_ALL, _SMALL, _MEDIUM, _LARGE = range(4)
# Pixels, mean over the frames with a mask. Both ends belong to a range.
_AREA_RANGES = ((0.0, 1e10), (0.0, 128.0**2), (128.0**2, 256.0**2), (256.0**2, 1e10))


@dataclass
class _Track:
    masks: list[RLE | None]
    areas: np.ndarray  # (T,), 0 where there is no mask
    area: float  # mean over frames with a mask
    score: float = 0.0
    crowd: bool = False


@dataclass
class _Match:
    """Detections of a category in a video, best score first, matched to the ground truth of an area range."""

    scores: np.ndarray  # (D,)
    matched: np.ndarray  # (thresholds, D)
    ignored: np.ndarray  # (thresholds, D)
    num_truths: int  # that count


def evaluate_ytvis(gt: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, Any]:
    """Evaluates results by the official YouTube-VIS protocol (Yang et al., ICCV 2019, section 5).

    It is COCO's with the overlap of two instances taken over space and time: the sum over frames of the
    intersections divided by that of the unions. Crowds are ignored, at the usual overlap.

    Args:
        gt: content of a YouTube-VIS annotation file. "areas" of an annotation, if given, decide about its
            area range, as in the official code; otherwise the masks do.
        results: a dict for every instance found: video_id, category_id, score and segmentations (an RLE or
            None for every frame).

    Returns:
        percentages by the names of :data:`METRICS`, and AP of every class by name in "per_category". NaN
        where there is nothing to measure.

    Raises:
        InputError: if something is missing or malformed; the message names it.
    """
    videos = {video["id"]: video for video in _entries(gt, "videos")}
    names = {category["id"]: category["name"] for category in _entries(gt, "categories")}
    truths, detections = defaultdict(list), defaultdict(list)
    for annotation in _entries(gt, "annotations"):
        where = f"ground truth, video {annotation.get('video_id')}, annotation {annotation.get('id')}"
        key = _key(annotation, videos, names, where)
        track = _track(annotation, videos[key[0]], where)
        track.crowd = bool(annotation.get("iscrowd"))
        if isinstance(annotation.get("areas"), list):
            track.area = _mean_area(np.asarray([area or 0 for area in annotation["areas"]], dtype=float))
        truths[key].append(track)
    if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
        raise InputError("results must be a list of objects, one for every instance found")
    for index, result in enumerate(results):
        where = f"result {index} (video {result.get('video_id')})"
        key = _key(result, videos, names, where)
        track = _track(result, videos[key[0]], where)
        score = result.get("score")
        if not isinstance(score, int | float) or not math.isfinite(score):
            raise InputError(f"{where}: 'score' must be a finite number, not {score!r}")
        track.score = float(score)
        detections[key].append(track)

    categories = sorted(names)
    shape = (len(categories), len(_AREA_RANGES), len(_MAX_DETECTIONS), len(_IOU_THRESHOLDS))
    recall = np.full(shape, np.nan)
    precision = np.full((*shape, len(_RECALL_POINTS)), np.nan)
    for k, category in enumerate(categories):
        keys = [
            (v, category) for v in sorted(videos) if (v, category) in truths or (v, category) in detections
        ]
        matches = [_match_all_ranges(detections[key], truths[key]) for key in keys]
        for a in range(len(_AREA_RANGES)):
            for m, max_detections in enumerate(_MAX_DETECTIONS):
                curve = _curve([match[a] for match in matches], max_detections)
                if curve is not None:
                    precision[k, a, m], recall[k, a, m] = curve
    figures = _summary(precision, recall)
    ap = [_percent(precision[k, _ALL, -1]) for k in range(len(categories))]
    figures["per_category"] = {names[category]: ap[k] for k, category in enumerate(categories)}
    return figures


def _entries(gt: Any, key: str) -> list[dict[str, Any]]:
    entries = gt.get(key) if isinstance(gt, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"ground truth: '{key}' must be a list of objects; is it YouTube-VIS format?")
    return entries


def _key(entry: dict[str, Any], videos: dict, names: dict, where: str) -> tuple[int, int]:
    video, category = entry.get("video_id"), entry.get("category_id")
    if not isinstance(video, int) or video not in videos:
        raise InputError(f"{where}: there is no video {video!r} in the ground truth")
    if not isinstance(category, int) or category not in names:
        raise InputError(f"{where}: there is no category {category!r} in the ground truth")
    return video, category


def _track(entry: dict[str, Any], video: dict[str, Any], where: str) -> _Track:
    segmentations = entry.get("segmentations")
    length = len(video["file_names"])
    if not isinstance(segmentations, list) or len(segmentations) != length:
        found = f"{len(segmentations)} entries" if isinstance(segmentations, list) else "no list"
        raise InputError(f"{where}: 'segmentations' has {found}, the video {length} frames")
    masks = []
    for frame, segmentation in enumerate(segmentations):
        try:
            masks.append(to_rle(segmentation, video["height"], video["width"]))
        except InputError as error:
            raise InputError(f"{where}, frame {frame}: {error}") from None
    areas = np.zeros(length)
    seen = [frame for frame, mask in enumerate(masks) if mask is not None]
    if seen:
        areas[seen] = mask_api.area([masks[frame] for frame in seen])
    return _Track(masks, areas, _mean_area(areas))


def _mean_area(areas: np.ndarray) -> float:
    return float(areas[areas > 0].mean()) if (areas > 0).any() else 0.0


def _overlaps(detections: list[_Track], truths: list[_Track]) -> np.ndarray:
    """Space-time IoU (D, G)."""
    intersection = np.zeros((len(detections), len(truths)))
    for frame in range(len(truths[0].masks)):
        rows = [d for d, track in enumerate(detections) if track.areas[frame]]
        columns = [g for g, track in enumerate(truths) if track.areas[frame]]
        if rows and columns:
            # For crowds pycocotools divides the intersection by the first mask's area, from which the
            # number of pixels is found exactly; one call serves all pairs.
            share = mask_api.iou(
                [detections[d].masks[frame] for d in rows],
                [truths[g].masks[frame] for g in columns],
                [1] * len(columns),
            )
            areas = np.asarray([detections[d].areas[frame] for d in rows])
            intersection[np.ix_(rows, columns)] += np.rint(share * areas[:, None])
    found, wanted = (np.asarray([track.areas.sum() for track in tracks]) for tracks in (detections, truths))
    union = found[:, None] + wanted - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def _match_all_ranges(detections: list[_Track], truths: list[_Track]) -> list[_Match]:
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
