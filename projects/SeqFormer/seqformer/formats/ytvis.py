"""The content of a YouTube-VIS JSON, checked: one reading for training, evaluation and check_dataset.py."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqformer.errors import InputError
from seqformer.formats.rle import to_rle
from seqformer.structures import RLE

__all__ = [
    "Annotation",
    "Dataset",
    "Report",
    "Video",
    "parse_categories",
    "parse_dataset",
    "parse_segmentations",
    "parse_videos",
    "refuse",
]

Report = Callable[[str], None]
"""Takes a problem, as one line. It may raise; if it returns, what the problem is about is left out."""

_SHOWN = 10  # names of missing frames in one message


def refuse(problem: str) -> None:
    """The report of those who cannot go on with a problem.

    Raises:
        InputError: always.
    """
    raise InputError(problem)


@dataclass
class Video:
    """A video of the JSON.

    Attributes:
        names: files of its T frames, as in the JSON.
        height, width: pixels.
    """

    id: int
    names: list[str]
    height: int
    width: int

    @property
    def length(self) -> int:
        """Frames, T."""
        return len(self.names)


@dataclass
class Annotation:
    """An instance in a video.

    Attributes:
        category: id as in the JSON.
        masks: one a frame; None where there is none.
        boxes: T times xywh in pixels, or None; None if the JSON has none at all.
        areas: T times pixels, 0 where there is no mask; None if the JSON has none.
    """

    id: int
    video: Video
    category: int
    crowd: bool
    masks: list[RLE | None]
    boxes: list[list[float] | None] | None
    areas: list[float] | None


@dataclass
class Dataset:
    """A YouTube-VIS JSON.

    Attributes:
        names: category names by id, in the order of ids.
        videos: by id, in the order of the file.
        annotations: in the order of the file; None if the JSON has none.
    """

    names: dict[int, str]
    videos: dict[int, Video]
    annotations: list[Annotation] | None


def parse_dataset(data: Any, source: str, report: Report, image_root: Path | None = None) -> Dataset:
    """Reads what a YouTube-VIS JSON holds.

    Args:
        data: content of the file.
        source: what messages call it.
        report: called with every problem, named by file, video, annotation and frame.
        image_root: the folder that file names are relative to, to see whether all frames are there; None
            not to look.

    Raises:
        InputError: if it is no JSON object.
    """
    if not isinstance(data, dict):
        raise InputError(f"{source}: not an object with 'videos' and 'categories'")
    names = parse_categories(data, source, report)
    videos = parse_videos(data, source, report, image_root)
    annotations = None
    if data.get("annotations") is not None:
        annotations = []
        identities: set[int] = set()
        for index, entry in enumerate(_objects(data, "annotations", source, report)):
            identity = entry.get("id", index)
            if not _is_integer(identity) or identity in identities:
                where = f"{source}: video {entry.get('video_id')}, annotation {identity}"
                report(f"{where}: ids must be integers, each used once")
                continue
            identities.add(identity)
            annotation = _annotation(entry, identity, names, videos, source, report)
            if annotation is not None:
                annotations.append(annotation)
    return Dataset(names, videos, annotations)


def parse_categories(data: dict[str, Any], source: str, report: Report) -> dict[int, str]:
    """Category names by id, in the order of ids."""
    names: dict[int, str] = {}
    for category in _objects(data, "categories", source, report):
        id_, name = category.get("id"), category.get("name")
        if not _is_integer(id_) or not isinstance(name, str):
            report(f"{source}: a category needs an integer 'id' and a 'name'")
        elif id_ in names:
            report(f"{source}: two categories have the id {id_}")
        elif name in names.values():
            report(f"{source}: two categories have the name '{name}'")
        else:
            names[id_] = name
    if data.get("categories") == []:
        report(f"{source}: no categories")
    return {id_: names[id_] for id_ in sorted(names)}


def parse_videos(
    data: dict[str, Any], source: str, report: Report, image_root: Path | None = None
) -> dict[int, Video]:
    """Videos by id, in the order of the file."""
    videos: dict[int, Video] = {}
    listings: dict[Path, set[str]] = {}
    for entry in _objects(data, "videos", source, report):
        video = _video(entry, source, report)
        if video is None:
            continue
        if video.id in videos:
            report(f"{source}: two videos have the id {video.id}")
            continue
        videos[video.id] = video
        if image_root is not None:
            missing = _missing_files(image_root, video.names, listings)
            if missing:
                listed = ", ".join(f"'{path}'" for path in missing[:_SHOWN])
                more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
                report(
                    f"{source}: video {video.id}: {len(missing)} of {video.length} frames are missing: "
                    f"{listed}{more}"
                )
    if data.get("videos") == []:
        report(f"{source}: no videos")
    return videos


def parse_segmentations(entries: Any, video: Video, where: str, report: Report) -> list[RLE | None] | None:
    """Masks of an annotation or result, one a frame of the video.

    Args:
        entries: polygons, RLE (compressed or not) or null for every frame.
        video: the video that they are of.
        where: what messages begin with.
        report: called with every problem.

    Returns:
        the masks as compressed RLEs, None where there is none; None if there is no list as long as the video.
    """
    if not _fits(entries, video.length, "segmentations", where, report):
        return None
    masks: list[RLE | None] = []
    for frame, segmentation in enumerate(entries):
        mask = None
        try:
            mask = to_rle(segmentation, video.height, video.width)
        except InputError as error:
            report(f"{where}, frame {frame}: {error}")
        masks.append(mask)
    return masks


def _objects(data: dict[str, Any], key: str, source: str, report: Report) -> list[dict[str, Any]]:
    entries = data.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        report(f"{source}: '{key}' must be a list of objects; is it YouTube-VIS format?")
        entries = entries if isinstance(entries, list) else []
    return [entry for entry in entries if isinstance(entry, dict)]


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _video(entry: dict[str, Any], source: str, report: Report) -> Video | None:
    where = f"{source}: video {entry.get('id', '(without id)')}"
    problems = [
        f"{where}: '{key}' must be a positive integer"
        for key in ("id", "height", "width")
        if not _is_integer(entry.get(key)) or (key != "id" and entry[key] < 1)
    ]
    names = entry.get("file_names")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        problems.append(f"{where}: 'file_names' must be a list of at least one name")
    elif entry.get("length", len(names)) != len(names):
        problems.append(f"{where}: 'length' is {entry['length']}, but there are {len(names)} file_names")
    for problem in problems:
        report(problem)
    return None if problems else Video(entry["id"], names, entry["height"], entry["width"])


def _missing_files(root: Path, names: list[str], listings: dict[Path, set[str]]) -> list[Path]:
    # A listing a folder: much faster than a look at every file, above all on network disks.
    paths = [root / name for name in names]
    for folder in {path.parent for path in paths} - listings.keys():
        try:
            listings[folder] = set(os.listdir(folder))
        except OSError:
            listings[folder] = set()
    return [path for path in paths if path.name not in listings[path.parent]]


def _annotation(
    entry: dict[str, Any],
    identity: int,
    names: dict[int, str],
    videos: dict[int, Video],
    source: str,
    report: Report,
) -> Annotation | None:
    video_id, category = entry.get("video_id"), entry.get("category_id")
    where = f"{source}: video {video_id}, annotation {identity}"
    known = _is_integer(category) and category in names
    if not known:
        report(f"{where}: category_id {category} is not among the categories {_span(names)}")
    video = videos.get(video_id) if _is_integer(video_id) else None
    if video is None:
        report(f"{where}: there is no video with that id")
        return None
    masks = parse_segmentations(entry.get("segmentations"), video, where, report)
    boxes = _boxes(entry.get("bboxes"), video, where, report)
    areas = _areas(entry.get("areas"), video, where, report)
    if not known or masks is None:
        return None
    return Annotation(identity, video, category, bool(entry.get("iscrowd")), masks, boxes, areas)


def _fits(entries: Any, length: int, key: str, where: str, report: Report) -> bool:
    if isinstance(entries, list) and len(entries) == length:
        return True
    found = f"{len(entries)} entries" if isinstance(entries, list) else "no list"
    report(f"{where}: '{key}' has {found}, the video {length} frames")
    return False


def _boxes(entries: Any, video: Video, where: str, report: Report) -> list[list[float] | None] | None:
    if not entries or not _fits(entries, video.length, "bboxes", where, report):
        return None
    boxes: list[list[float] | None] = []
    for frame, box in enumerate(entries):
        right = isinstance(box, list) and len(box) == 4 and all(map(_is_number, box)) and min(box[2:]) >= 0
        if box is not None and not right:
            report(f"{where}, frame {frame}: a box must be x, y, width and height in pixels, not {box!r}")
        boxes.append(box if right else None)
    return boxes


def _areas(entries: Any, video: Video, where: str, report: Report) -> list[float] | None:
    if not entries or not _fits(entries, video.length, "areas", where, report):
        return None
    areas = []
    for frame, area in enumerate(entries):
        right = area is None or (_is_number(area) and area >= 0)
        if not right:
            report(f"{where}, frame {frame}: an area must be a number of pixels, not {area!r}")
        areas.append(float(area or 0) if right else 0.0)
    return areas


def _span(names: dict[int, str]) -> str:
    if not names:
        return "(there are none)"
    return f"{min(names)} to {max(names)}" if len(names) > 1 else f"({min(names)})"
