"""A results.json as instances by video, for writers of other formats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from seqformer.errors import InputError
from seqformer.evaluation.tracks import read_results
from seqformer.formats.files import read_json
from seqformer.formats.rle import decode_mask
from seqformer.formats.ytvis import Dataset, parse_dataset, refuse
from seqformer.structures import RLE

__all__ = ["FoundInstance", "FoundVideo", "paint", "read_found"]


@dataclass
class FoundInstance:
    """An instance with the category that it most likely is of.

    Attributes:
        category, category_id: as in the dataset.
        masks: one a frame; None where there is none.
    """

    category: str
    category_id: int
    score: float
    masks: list[RLE | None]


@dataclass
class FoundVideo:
    """What was found in a video.

    Attributes:
        folder: of its frames, relative to the folder of frames; unique.
        stems: names of its T frames without folder and suffix.
        names: of the frames, as in the dataset.
        height, width: pixels.
        instances: highest score first.
    """

    id: int
    folder: str
    stems: list[str]
    names: list[str]
    height: int
    width: int
    instances: list[FoundInstance] = field(default_factory=list)


def read_found(
    dataset_json: Path, results_json: Path, score_threshold: float
) -> tuple[dict[int, str], list[FoundVideo]]:
    """Category names by id, and the videos in the order of the dataset.

    Results with equal masks are one instance under several categories: the one with the highest score stays.

    Args:
        dataset_json: a YouTube-VIS JSON with the videos; annotations are not looked at.
        results_json: the results on it.
        score_threshold: results below are left out.

    Raises:
        InputError: if something is missing or malformed, or two videos have the same folder.
    """
    if not 0 <= score_threshold <= 1:
        raise InputError(f"--score-threshold {score_threshold}: give a score from 0 to 1")
    content = read_json(dataset_json)
    if isinstance(content, dict):
        content = {key: value for key, value in content.items() if key != "annotations"}
    dataset = parse_dataset(content, str(dataset_json), refuse)
    videos = _videos(dataset, dataset_json)
    seen: dict[tuple, FoundInstance] = {}
    for result in read_results(results_json, dataset, str(dataset_json)):
        if result.score < score_threshold or not any(result.masks):
            continue
        instance = FoundInstance(dataset.names[result.category], result.category, result.score, result.masks)
        key = (result.video.id, *(mask and mask["counts"] for mask in result.masks))
        known = seen.get(key)
        if known is None or known.score < instance.score:
            seen[key] = instance
    for key, instance in seen.items():
        videos[key[0]].instances.append(instance)
    for video in videos.values():
        video.instances.sort(key=lambda instance: -instance.score)
    return dataset.names, list(videos.values())


def _videos(dataset: Dataset, dataset_json: Path) -> dict[int, FoundVideo]:
    videos: dict[int, FoundVideo] = {}
    folders: dict[str, int] = {}
    for video in dataset.videos.values():
        paths = [PurePosixPath(name.replace("\\", "/")) for name in video.names]
        parents = {path.parent for path in paths}
        where = f"{dataset_json}: video {video.id}"
        if len(parents) > 1 or any(parent.is_absolute() or ".." in parent.parts for parent in parents):
            raise InputError(f"{where}: its frames must lie in one folder below the folder of frames")
        parent = str(parents.pop())
        folder = str(video.id) if parent == "." else parent
        if folder in folders:
            raise InputError(f"{where}: its frames lie in the folder of video {folders[folder]}, '{folder}'")
        stems = [path.stem for path in paths]
        if len(set(stems)) < len(stems):
            raise InputError(f"{where}: two frames have the same name")
        folders[folder] = video.id
        videos[video.id] = FoundVideo(video.id, folder, stems, video.names, video.height, video.width)
    return videos


def paint(video: FoundVideo, frame: int, numbers: Mapping[int, int]) -> np.ndarray:
    """A picture (H, W) of ids, int64, 0 where nothing is; the higher score lies in front.

    Args:
        numbers: the id to paint by ``id(instance)``.
    """
    picture = np.zeros((video.height, video.width), dtype=np.int64)
    for instance in reversed(video.instances):
        if instance.masks[frame] is not None:
            picture[decode_mask(instance.masks[frame]).astype(bool)] = numbers[id(instance)]
    return picture
