"""Videos with their annotations or results, for writers of other formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from seqformer.errors import InputError
from seqformer.formats.checks import check_names, quoted
from seqformer.formats.files import is_inside, read_json
from seqformer.formats.results import best_categories, read_results
from seqformer.formats.rle import decode_mask, mask_areas
from seqformer.formats.ytvis import Video, parse_dataset
from seqformer.structures import RLE

__all__ = ["LabelledInstance", "LabelledVideo", "paint_ids", "read_labelled"]


@dataclass
class LabelledInstance:
    """An instance to write: an annotation, or a result with its best category.

    Attributes:
        id: unique in the dataset: that of the annotation; results are counted from 1.
        category: category id.
        masks: T masks, none of them empty; None in frames without one.
        score: None for an annotation.
        crowd: whether this is a region that evaluation ignores.
    """

    id: int
    category: int
    masks: list[RLE | None]
    score: float | None = None
    crowd: bool = False


@dataclass
class LabelledVideo:
    """A video with the instances to write.

    Attributes:
        folder: the folder of its frames, relative to the root folder of frames; unique in the dataset.
        stems: names of its T frames without folder and suffix.
        instances: results sorted by decreasing score, or annotations in the order of the file.
    """

    video: Video
    folder: str
    stems: list[str]
    instances: list[LabelledInstance] = field(default_factory=list)


def read_labelled(
    dataset_json: Path, results_json: Path | None = None, score_threshold: float = 0.0
) -> tuple[dict[int, str], list[LabelledVideo]]:
    """Reads videos with their results or their annotations. Instances without a mask are dropped.

    Args:
        dataset_json: a YouTube-VIS JSON with the videos.
        results_json: the results; the annotations of the dataset are not used then. None for the annotations.
        score_threshold: results with lower scores are dropped.

    Returns:
        Category names by id, and the videos in the order of the dataset.

    Raises:
        InputError: if something is missing or malformed, or two videos have the same folder.
    """
    if not 0 <= score_threshold <= 1:
        raise InputError(f"`score_threshold` must be from 0 to 1, not {score_threshold}")
    content = read_json(dataset_json)
    if isinstance(content, dict) and results_json is not None:
        content.pop("annotations", None)
    dataset = parse_dataset(content, str(dataset_json))
    check_names(dataset.names.values())
    labelled: dict[int, LabelledVideo] = {}
    folders: dict[str, int] = {}
    for video in dataset.videos.values():
        where = f"{dataset_json}: video {video.id}"
        folder, stems = _names(video, where)
        if folder in folders:
            raise InputError(f"{where}: shares the folder '{folder}' with video {folders[folder]}")
        folders[folder] = video.id
        labelled[video.id] = LabelledVideo(video, folder, stems)
    videos = list(labelled.values())
    if results_json is None:
        if dataset.annotations is None:
            raise InputError(f"{dataset_json}: no 'annotations'")
        for a in dataset.annotations:
            if any(masks := _without_empty(a.masks)):
                instance = LabelledInstance(a.id, a.category, masks, crowd=a.crowd)
                labelled[a.video.id].instances.append(instance)
        return dataset.names, videos
    results = read_results(results_json, dataset.videos, dataset.names, dataset=str(dataset_json))
    kept = (
        result for result in results if result.score >= score_threshold and any(_without_empty(result.masks))
    )
    for result in sorted(best_categories(kept), key=lambda result: -result.score):
        instance = LabelledInstance(0, result.category, _without_empty(result.masks), result.score)
        labelled[result.video.id].instances.append(instance)
    for id_, instance in enumerate((i for video in videos for i in video.instances), start=1):
        instance.id = id_
    return dataset.names, videos


def _without_empty(masks: list[RLE | None]) -> list[RLE | None]:
    return [mask if area else None for mask, area in zip(masks, mask_areas(masks), strict=True)]


def _names(video: Video, where: str) -> tuple[str, list[str]]:
    """Returns the folder and the stems of a video's frames."""
    paths = [PurePosixPath(name.replace("\\", "/")) for name in video.names]
    parents = {path.parent for path in paths}
    if len(parents) > 1 or any(not is_inside(str(path)) for path in paths):
        raise InputError(f"{where}: all frames must be in one subfolder of the folder of frames")
    stems = [path.stem for path in paths]
    if len(set(stems)) < len(stems):
        raise InputError(f"{where}: two frames have the same name")
    hidden = next((path.name for path in paths if path.name.startswith(".")), None)
    if hidden is not None:
        raise InputError(
            f"{where}: the frame {quoted(hidden)} is a hidden file, which other tools do not read"
        )
    parent = str(parents.pop())
    return str(video.id) if parent == "." else parent, stems


def paint_ids(labelled: LabelledVideo, frame: int, ids: Sequence[int]) -> np.ndarray:
    """Paints the instances of a frame as ids, the first instance in front.

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
