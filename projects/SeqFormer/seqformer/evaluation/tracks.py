"""Ground truth and results of an evaluation, read and checked once for all metrics."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from seqformer.errors import InputError
from seqformer.formats.files import read_content
from seqformer.formats.results import read_results
from seqformer.formats.rle import mask_areas
from seqformer.formats.ytvis import Video, parse_dataset
from seqformer.structures import RLE

__all__ = ["Track", "Tracks", "read_tracks"]


@dataclass
class Track:
    """An instance of the ground truth, or a predicted one.

    Attributes:
        masks: one for each of T frames; None where there is none.
        areas: (T,) pixels, 0 where there is no mask.
        area: decides on the area range: the mean over the frames with a mask.
        score: of a predicted instance.
        crowd: whether a ground-truth instance is a crowd.
    """

    masks: list[RLE | None]
    areas: np.ndarray
    area: float
    score: float = 0.0
    crowd: bool = False


Key = tuple[int, int]  # video id, category id


@dataclass
class Tracks:
    """The ground truth and the results that are compared with it.

    Attributes:
        videos: by id.
        names: category names by id, in the order of ids.
        truths, detections: by video and category, in the order of the files.
    """

    videos: dict[int, Video]
    names: dict[int, str]
    truths: dict[Key, list[Track]] = field(default_factory=lambda: defaultdict(list))
    detections: dict[Key, list[Track]] = field(default_factory=lambda: defaultdict(list))


def read_tracks(gt: dict[str, Any] | str | Path, results: list[dict[str, Any]] | str | Path) -> Tracks:
    """Reads ground truth and results.

    Args:
        gt: a YouTube-VIS annotation file or its content. "areas" of an annotation, if given, decide about
            its area range, as in the official code; otherwise the masks do.
        results: a results.json or its content: a dict for every predicted instance, with video_id,
            category_id, score and segmentations (an RLE or None for every frame).

    Raises:
        InputError: names file, video and annotation or result if something is missing or malformed.
    """
    gt, source = read_content(gt, "ground truth")
    dataset = parse_dataset(gt, source)
    if dataset.annotations is None:
        raise InputError(f"{source}: no annotations, so there is nothing to compare with")
    tracks = Tracks(dataset.videos, dataset.names)
    for annotation in dataset.annotations:
        track = _track(annotation.masks)
        track.crowd = annotation.crowd
        if annotation.areas is not None:
            track.area = _mean_area(np.asarray(annotation.areas))
        tracks.truths[annotation.video.id, annotation.category].append(track)
    for result in read_results(results, dataset.videos, dataset.names, dataset=source):
        track = _track(result.masks)
        track.score = result.score
        tracks.detections[result.video.id, result.category].append(track)
    return tracks


def _track(masks: list[RLE | None]) -> Track:
    areas = mask_areas(masks)
    return Track(masks, areas, _mean_area(areas))


def _mean_area(areas: np.ndarray) -> float:
    return float(areas[areas > 0].mean()) if (areas > 0).any() else 0.0
