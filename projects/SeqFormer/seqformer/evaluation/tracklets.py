"""Reads and checks ground truth and results once, for all metrics."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from seqformer.errors import InputError
from seqformer.formats.files import read_content
from seqformer.formats.results import read_results
from seqformer.formats.rle import frame_iou, mask_areas
from seqformer.formats.ytvis import Video, allow_outside, parse_dataset
from seqformer.structures import RLE

__all__ = ["EvalTracklet", "EvalTracklets", "read_tracklets"]


@dataclass
class EvalTracklet:
    """A ground-truth or predicted tracklet.

    Attributes:
        masks: T masks; None in frames without one.
        areas: (T,) pixels, 0 in frames without a mask.
        area: area that determines the area range: the mean over frames with a mask.
        score: score, if predicted.
        crowd: whether it is a crowd, if ground truth.
    """

    masks: list[RLE | None]
    areas: np.ndarray
    area: float
    score: float = 0.0
    crowd: bool = False


Key = tuple[int, int]  # video id, category id


@dataclass
class EvalTracklets:
    """The tracklets to compare.

    Attributes:
        videos: videos by id.
        names: category names by id, in the order of ids.
        truths, predictions: tracklets by video and category, in file order.
    """

    videos: dict[int, Video]
    names: dict[int, str]
    truths: dict[Key, list[EvalTracklet]] = field(default_factory=lambda: defaultdict(list))
    predictions: dict[Key, list[EvalTracklet]] = field(default_factory=lambda: defaultdict(list))
    _overlaps: dict[Key, np.ndarray] = field(default_factory=dict, repr=False)

    def overlaps(self, key: Key) -> np.ndarray:
        """Returns the IoU (T, G, D) of all ground-truth and predicted tracklets of a video and category.

        It is kept, because several metrics need it and computing it takes most of their time.
        """
        if key not in self._overlaps:
            truths, predictions = self.truths.get(key, []), self.predictions.get(key, [])
            self._overlaps[key] = frame_iou([t.masks for t in truths], [p.masks for p in predictions])
        return self._overlaps[key]


def read_tracklets(
    gt: dict[str, Any] | str | Path, results: list[dict[str, Any]] | str | Path
) -> EvalTracklets:
    """Reads ground truth and results.

    Args:
        gt: a YouTube-VIS annotation file or its content. If an annotation has "areas", they determine its
            area range, as in the official code; otherwise the masks do.
        results: a results.json or its content: a dict for each predicted instance, with video_id,
            category_id, score and segmentations (an RLE or None for each frame).

    Raises:
        InputError: if something is missing or malformed; the message names file, video and annotation or
            result.
    """
    gt, source = read_content(gt, "ground truth")
    with allow_outside():  # frames are not read
        dataset = parse_dataset(gt, source)
    if dataset.annotations is None:
        raise InputError(f"{source}: no annotations to compare with")
    tracklets = EvalTracklets(dataset.videos, dataset.names)
    for annotation in dataset.annotations:
        tracklet = _tracklet(annotation.masks)
        tracklet.crowd = annotation.crowd
        if annotation.areas is not None:
            tracklet.area = _mean_area(np.asarray(annotation.areas))
        tracklets.truths[annotation.video.id, annotation.category].append(tracklet)
    known: dict[int, EvalTracklet] = {}  # by identity of the masks, which results may share
    for result in read_results(results, dataset.videos, dataset.names, dataset=source):
        tracklet = known.get(id(result.masks)) or _tracklet(result.masks)
        known[id(result.masks)] = tracklet
        tracklet = replace(tracklet, score=result.score)
        tracklets.predictions[result.video.id, result.category].append(tracklet)
    return tracklets


def _tracklet(masks: list[RLE | None]) -> EvalTracklet:
    areas = mask_areas(masks)
    return EvalTracklet(masks, areas, _mean_area(areas))


def _mean_area(areas: np.ndarray) -> float:
    return float(areas[areas > 0].mean()) if (areas > 0).any() else 0.0
