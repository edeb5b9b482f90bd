"""Ground truth and results of an evaluation, read and checked once for all that is measured on them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from seqformer.errors import InputError
from seqformer.formats.files import read_json
from seqformer.formats.rle import mask_areas
from seqformer.formats.ytvis import Dataset, Video, parse_dataset, parse_segmentations, refuse
from seqformer.structures import RLE

__all__ = ["Result", "Track", "Tracks", "read_results", "read_tracks"]


@dataclass
class Track:
    """An instance, wanted or found.

    Attributes:
        masks: one a frame, T; None where there is none.
        areas: (T,) pixels, 0 where there is no mask.
        area: that decides about the area range: mean over the frames with a mask.
        score: of found ones.
        crowd: of wanted ones.
    """

    masks: list[RLE | None]
    areas: np.ndarray
    area: float
    score: float = 0.0
    crowd: bool = False


@dataclass
class Result:
    """An instance found: an entry of results.json, checked.

    Attributes:
        category: id as in the dataset.
        masks: one a frame of the video; None where there is none.
    """

    video: Video
    category: int
    score: float
    masks: list[RLE | None]


Key = tuple[int, int]  # video id, category id


@dataclass
class Tracks:
    """What is compared.

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
        results: a results.json or its content: a dict for every instance found, with video_id, category_id,
            score and segmentations (an RLE or None for every frame).

    Raises:
        InputError: names file, video and annotation or result if something is missing or malformed.
    """
    gt, source = _content(gt, "ground truth")
    dataset = parse_dataset(gt, source, refuse)
    if dataset.annotations is None:
        raise InputError(f"{source}: no annotations, so there is nothing to compare with")
    tracks = Tracks(dataset.videos, dataset.names)
    for annotation in dataset.annotations:
        track = _track(annotation.masks)
        track.crowd = annotation.crowd
        if annotation.areas is not None:
            track.area = _mean_area(np.asarray(annotation.areas))
        tracks.truths[annotation.video.id, annotation.category].append(track)
    for result in read_results(results, dataset, source):
        track = _track(result.masks)
        track.score = result.score
        tracks.detections[result.video.id, result.category].append(track)
    return tracks


def read_results(
    results: list[dict[str, Any]] | str | Path, dataset: Dataset, dataset_source: str
) -> Iterator[Result]:
    """Reads results one by one, in the order of the file.

    Args:
        results: a results.json or its content.
        dataset: what they are results on.
        dataset_source: what messages call it.

    Raises:
        InputError: names file, video, result and frame if something is missing or malformed.
    """
    results, source = _content(results, "results")
    if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
        raise InputError(f"{source}: not a list of objects, one for every instance found")
    for index, result in enumerate(results):
        video, category, score = (result.get(key) for key in ("video_id", "category_id", "score"))
        where = f"{source}: video {video}, result {index}"
        if not isinstance(video, int) or video not in dataset.videos:
            raise InputError(f"{where}: there is no video {video!r} in {dataset_source}")
        if not isinstance(category, int) or category not in dataset.names:
            raise InputError(f"{where}: there is no category {category!r} in {dataset_source}")
        if not isinstance(score, int | float) or not math.isfinite(score):
            raise InputError(f"{where}: 'score' must be a finite number, not {score!r}")
        masks = parse_segmentations(result.get("segmentations"), dataset.videos[video], where, refuse)
        yield Result(dataset.videos[video], category, float(score), masks)


def _content(source: Any, name: str) -> tuple[Any, str]:
    if isinstance(source, str | Path):
        return read_json(source), str(source)
    return source, name


def _track(masks: list[RLE | None]) -> Track:
    areas = mask_areas(masks)
    return Track(masks, areas, _mean_area(areas))


def _mean_area(areas: np.ndarray) -> float:
    return float(areas[areas > 0].mean()) if (areas > 0).any() else 0.0
