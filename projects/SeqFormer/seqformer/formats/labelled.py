"""Videos with their results, for writers of other formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from seqformer.errors import InputError
from seqformer.formats.files import read_json
from seqformer.formats.results import Result, best_categories, read_results
from seqformer.formats.rle import decode_mask
from seqformer.formats.ytvis import Video, parse_dataset

__all__ = ["LabelledVideo", "paint_ids", "read_labelled"]


@dataclass
class LabelledVideo:
    """A video with the instances predicted in it.

    Attributes:
        folder: the folder of its frames, relative to the root folder of frames; unique in the dataset.
        stems: names of its T frames without folder and suffix.
        instances: sorted by decreasing score, each with its best category only.
    """

    video: Video
    folder: str
    stems: list[str]
    instances: list[Result] = field(default_factory=list)


def read_labelled(
    dataset_json: Path, results_json: Path, score_threshold: float = 0.0
) -> tuple[dict[int, str], list[LabelledVideo]]:
    """Reads results and their videos.

    Args:
        dataset_json: a YouTube-VIS JSON with the videos; its annotations are not used.
        results_json: the results.
        score_threshold: results with lower scores are dropped.

    Returns:
        Category names by id, and the videos in the order of the dataset.

    Raises:
        InputError: if something is missing or malformed, or two videos have the same folder.
    """
    if not 0 <= score_threshold <= 1:
        raise InputError(f"`score_threshold` must be from 0 to 1, not {score_threshold}")
    content = read_json(dataset_json)
    if isinstance(content, dict):
        content.pop("annotations", None)
    dataset = parse_dataset(content, str(dataset_json))
    labelled: dict[int, LabelledVideo] = {}
    folders: dict[str, int] = {}
    for video in dataset.videos.values():
        where = f"{dataset_json}: video {video.id}"
        folder, stems = _names(video, where)
        if folder in folders:
            raise InputError(f"{where}: shares the folder '{folder}' with video {folders[folder]}")
        folders[folder] = video.id
        labelled[video.id] = LabelledVideo(video, folder, stems)
    results = read_results(results_json, dataset.videos, dataset.names, dataset=str(dataset_json))
    kept = (result for result in results if result.score >= score_threshold and any(result.masks))
    for result in sorted(best_categories(kept), key=lambda result: -result.score):
        labelled[result.video.id].instances.append(result)
    return dataset.names, list(labelled.values())


def _names(video: Video, where: str) -> tuple[str, list[str]]:
    """Returns the folder and the stems of a video's frames."""
    paths = [PurePosixPath(name.replace("\\", "/")) for name in video.names]
    parents = {path.parent for path in paths}
    if len(parents) > 1 or any(parent.is_absolute() or ".." in parent.parts for parent in parents):
        raise InputError(f"{where}: all frames must be in one subfolder of the folder of frames")
    stems = [path.stem for path in paths]
    if len(set(stems)) < len(stems):
        raise InputError(f"{where}: two frames have the same name")
    parent = str(parents.pop())
    return str(video.id) if parent == "." else parent, stems


def paint_ids(labelled: LabelledVideo, frame: int, ids: Sequence[int]) -> np.ndarray:
    """Paints the instances of a frame as ids, with higher scores in front.

    Args:
        labelled: the video.
        frame: index of the frame.
        ids: the id of each instance of the video.

    Returns:
        (H, W) int64; 0 is background.
    """
    picture = np.zeros((labelled.video.height, labelled.video.width), dtype=np.int64)
    for instance, id_ in zip(reversed(labelled.instances), reversed(ids), strict=True):
        mask = instance.masks[frame]
        if mask is not None:
            picture[decode_mask(mask).astype(bool)] = id_
    return picture
