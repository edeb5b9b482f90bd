"""Reads, checks and writes YouTube-VIS JSON."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pycocotools import mask as mask_api

from seqformer.errors import InputError
from seqformer.formats.checks import (
    LARGEST_FRAME,
    Repeated,
    Report,
    as_integer,
    is_integer,
    is_number,
    named,
    objects,
    quoted,
    refuse,
)
from seqformer.formats.files import read_json, write_json
from seqformer.formats.rle import checked_rles, to_rle
from seqformer.structures import RLE

__all__ = [
    "Annotation",
    "Dataset",
    "Video",
    "allow_outside",
    "category_entries",
    "parse_categories",
    "parse_dataset",
    "parse_segmentations",
    "read_ytvis",
    "write_ytvis",
]

_LISTED = 10  # missing frames named in one message
_outside_allowed: ContextVar[bool] = ContextVar("outside_allowed", default=False)


@dataclass
class Video:
    """A video of a dataset.

    Attributes:
        names: file names of its T frames, relative to the folder of frames.
        height, width: pixels.
    """

    id: int
    names: list[str]
    height: int
    width: int

    @property
    def length(self) -> int:
        """The number of frames, T."""
        return len(self.names)


@dataclass
class Annotation:
    """An instance in a video.

    Attributes:
        category: category id.
        crowd: whether this is a region that evaluation ignores.
        masks: T masks; None in frames without one.
        boxes: T boxes, xywh in pixels, None in frames without one; None if the file has no boxes.
        areas: T areas in pixels, 0 in frames without a mask; None if the file has no areas.
        score: that of a result read from another format; None for an annotation.
    """

    id: int
    video: Video
    category: int
    crowd: bool
    masks: list[RLE | None]
    boxes: list[list[float] | None] | None = None
    areas: list[float] | None = None
    score: float | None = None


@dataclass
class Dataset:
    """The content of a YouTube-VIS JSON.

    Attributes:
        names: category names by id, in the order of ids.
        videos: videos by id, in file order.
        annotations: in file order; None if the file has none.
    """

    names: dict[int, str]
    videos: dict[int, Video]
    annotations: list[Annotation] | None

    def annotate(
        self, video: Video, category: int, masks: list[RLE | None], crowd: bool = False
    ) -> Annotation:
        """Adds an annotation with the next free id, and returns it."""
        if self.annotations is None:
            self.annotations = []
        annotation = Annotation(len(self.annotations) + 1, video, category, crowd, masks)
        self.annotations.append(annotation)
        return annotation


def write_ytvis(path: str | Path, dataset: Dataset) -> None:
    """Writes a YouTube-VIS JSON atomically.

    Missing boxes and areas are computed from the masks.

    Raises:
        InputError: if the file cannot be written.
    """
    content: dict[str, Any] = {
        "videos": [
            {"id": video.id, "file_names": video.names} | _size(video) for video in dataset.videos.values()
        ],
        "categories": category_entries(dataset.names),
    }
    if dataset.annotations is not None:
        content["annotations"] = [
            {
                "id": annotation.id,
                "video_id": annotation.video.id,
                "category_id": annotation.category,
                "iscrowd": int(annotation.crowd),
                **_size(annotation.video),
                "segmentations": annotation.masks,
                "bboxes": annotation.boxes
                or [mask and mask_api.toBbox(mask).tolist() for mask in annotation.masks],
                "areas": [area or None for area in annotation.areas]
                if annotation.areas
                else [mask and int(mask_api.area(mask)) for mask in annotation.masks],
            }
            for annotation in dataset.annotations
        ]
    write_json(path, content)


def category_entries(names: dict[int, str]) -> list[dict[str, Any]]:
    """Returns the JSON objects of categories, which :func:`parse_categories` reads."""
    return [{"id": id_, "name": name} for id_, name in names.items()]


def _size(video: Video) -> dict[str, int]:
    return {"height": video.height, "width": video.width, "length": video.length}


def read_ytvis(path: str | Path, report: Report = refuse, image_root: Path | None = None) -> Dataset:
    """Reads a YouTube-VIS JSON.

    Args:
        path: the file.
        report: see :func:`parse_dataset`. By default the first problem raises an error.
        image_root: see :func:`parse_dataset`.

    Raises:
        InputError: if the file cannot be read, or if ``report`` raises on a problem.
    """
    return parse_dataset(read_json(path), str(path), report, image_root)


def parse_dataset(data: Any, source: str, report: Report = refuse, image_root: Path | None = None) -> Dataset:
    """Checks the content of a YouTube-VIS JSON.

    Args:
        data: the content.
        source: its name in messages.
        report: called with each problem; the message names file, video, annotation and frame.
        image_root: the folder that file names are relative to. Missing frames are reported; None skips this
            check.

    Raises:
        InputError: if the content is not a JSON object, or if ``report`` raises on a problem.
    """
    if not isinstance(data, dict):
        raise InputError(f"{source}: not an object with 'videos' and 'categories'")
    names, bad_categories = _categories(data, source, report)
    videos, bad_videos = _videos(data, source, report, image_root)
    bad = _Bad(bad_categories, bad_videos, Repeated(report))
    annotations = None
    if data.get("annotations") is not None:
        annotations = []
        identities: set[int] = set()
        for index, entry in enumerate(objects(data, "annotations", source, report)):
            identity = as_integer(entry.get("id", index))
            if not is_integer(identity) or identity in identities:
                where = f"{source}: video {named(entry.get('video_id'))}, annotation {named(identity)}"
                if is_integer(identity):
                    report(f"{where}: ids must be integers, each used once")
                else:
                    bad.repeated(where, f"the id must be an integer, not {quoted(identity)}", "id")
                continue
            identities.add(identity)
            annotation = _annotation(entry, identity, names, videos, source, report, bad)
            if annotation is not None:
                annotations.append(annotation)
        bad.repeated.finish(source, "annotations")
    return Dataset(names, videos, annotations)


def parse_categories(data: dict[str, Any], source: str, report: Report = refuse) -> dict[int, str]:
    """Returns the category names in ``data["categories"]`` by id, in the order of ids."""
    return _categories(data, source, report)[0]


@dataclass
class _Bad:
    """What is known to be wrong, so that each problem is reported once.

    Attributes:
        categories, videos: ids of entries that were reported; their annotations are skipped.
        repeated: reports the problems that many annotations have.
    """

    categories: set[str]
    videos: set[str]
    repeated: Repeated


def _key(id_: Any) -> str:
    """Returns a key for any value of an id, the same for 5 and "5"."""
    return named(as_integer(id_))


def _categories(data: dict[str, Any], source: str, report: Report) -> tuple[dict[int, str], set[str]]:
    """Returns the names of :func:`parse_categories`, and the keys of the ids of unusable categories."""
    names: dict[int, str] = {}
    bad: set[str] = set()
    for category in objects(data, "categories", source, report):
        id_, name = as_integer(category.get("id")), category.get("name")
        if not is_integer(id_) or not isinstance(name, str):
            bad.add(_key(id_))
            report(
                f"{source}: a category needs an integer 'id' and a 'name', but has the id {quoted(id_)} and "
                f"the name {quoted(name)}"
            )
        elif id_ in names:
            report(f"{source}: two categories have the id {id_}")
        elif name in names.values():
            bad.add(_key(id_))
            report(f"{source}: two categories have the name {quoted(name)}")
        else:
            names[id_] = name
    if data.get("categories") == []:
        report(f"{source}: no categories")
    return {id_: names[id_] for id_ in sorted(names)}, bad


def _videos(
    data: dict[str, Any], source: str, report: Report, image_root: Path | None
) -> tuple[dict[int, Video], set[str]]:
    """Returns the videos by id, in file order, and the keys of the ids of unusable videos."""
    videos: dict[int, Video] = {}
    bad: set[str] = set()
    listings: dict[Path, set[str]] = {}
    for entry in objects(data, "videos", source, report):
        video = _video(entry, source, report)
        if video is None:
            bad.add(_key(entry.get("id")))
            continue
        if video.id in videos:
            report(f"{source}: two videos have the id {video.id}")
            continue
        videos[video.id] = video
        if image_root is not None:
            missing = _missing_files(image_root, video.names, listings)
            if missing:
                listed = ", ".join(f"'{path}'" for path in missing[:_LISTED])
                more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
                report(
                    f"{source}: video {video.id}: {len(missing)} of {video.length} frames are missing: "
                    f"{listed}{more}"
                )
    if data.get("videos") == []:
        report(f"{source}: no videos")
    return videos, bad


def parse_segmentations(entries: Any, video: Video, where: str, report: Report = refuse) -> list[RLE | None]:
    """Checks the masks of an annotation or result.

    Args:
        entries: one per frame: polygons, an RLE, compressed or not, or None.
        video: the video that the masks belong to.
        where: the beginning of messages.
        report: called with each problem.

    Returns:
        T masks as compressed RLEs, None in frames without one. An empty list if ``entries`` is not a list
        with one entry per frame.
    """
    if not _fits(entries, video.length, "segmentations", where, report):
        return []
    checked = checked_rles(entries, video.height, video.width)
    if checked is not None:
        return checked
    masks: list[RLE | None] = []
    for frame, segmentation in enumerate(entries):
        mask = None
        try:
            mask = to_rle(segmentation, video.height, video.width)
        except InputError as error:
            report(f"{where}, frame {frame}: {error}")
        masks.append(mask)
    return masks


def _video(entry: dict[str, Any], source: str, report: Report) -> Video | None:
    where = f"{source}: video {named(entry['id']) if 'id' in entry else '(without id)'}"
    values = {key: as_integer(entry.get(key)) for key in ("id", "height", "width")}
    problems = [
        f"{where}: '{key}' must be a positive integer, not {quoted(value)}"
        for key, value in values.items()
        if not is_integer(value) or (key != "id" and value < 1)
    ]
    names: Any = entry.get("file_names")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        problems.append(f"{where}: 'file_names' must be a list of at least one name")
    elif as_integer(entry.get("length", len(names))) != len(names):
        problems.append(
            f"{where}: 'length' is {quoted(entry['length'])}, but there are {len(names)} file_names"
        )
    if not problems and values["height"] * values["width"] > LARGEST_FRAME:
        size = f"{quoted(values['width'])}x{quoted(values['height'])}"
        problems.append(
            f"{where}: frames of {size} pixels are too large: at most {LARGEST_FRAME} can be used"
        )
    if not problems:
        outside = [name for name in names if not _is_usable(name)]
        if outside:
            problems.append(f"{where}: the file name {quoted(outside[0])} is not in the folder of frames")
    for problem in problems:
        report(problem)
    return None if problems else Video(values["id"], names, values["height"], values["width"])


@contextmanager
def allow_outside(allow: bool = True) -> Iterator[None]:
    """Lets datasets that are read inside the context name frames outside the folder of frames.

    Args:
        allow: False changes nothing.

    Examples:
        >>> with allow_outside():
        ...     dataset = read_ytvis("own.json")
    """
    token = _outside_allowed.set(allow or _outside_allowed.get())
    try:
        yield
    finally:
        _outside_allowed.reset(token)


def _is_usable(name: str) -> bool:
    """Whether a frame's name is a possible file name that stays in the folder of frames, if it has to."""
    path = PurePosixPath(name)
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    inside = not path.is_absolute() and ".." not in path.parts
    return bool(path.name) and "\0" not in name and (inside or _outside_allowed.get())


def _missing_files(root: Path, names: list[str], listings: dict[Path, set[str]]) -> list[Path]:
    # Listing each folder once is much faster than checking every file, especially on network disks.
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
    bad: _Bad,
) -> Annotation | None:
    video_id: Any = as_integer(entry.get("video_id"))
    category: Any = as_integer(entry.get("category_id"))
    crowd: Any = as_integer(entry.get("iscrowd"))
    where = f"{source}: video {named(video_id)}, annotation {named(identity)}"
    known = is_integer(category) and category in names
    if not known and _key(category) not in bad.categories:
        value = category if is_integer(category) else quoted(category)
        bad.repeated(
            where,
            f"category_id {value} is not one of the categories {_span(names)}",
            None if is_integer(category) else "category_id",
        )
    video = videos.get(video_id) if is_integer(video_id) else None
    if video is None:
        if _key(video_id) in bad.videos:
            pass  # its problem is reported
        elif is_integer(video_id):
            bad.repeated(where, "there is no video with that id", f"video {video_id}")
        else:
            bad.repeated(where, f"'video_id' must be an integer, not {quoted(video_id)}", "video_id")
        return None
    if crowd not in (None, 0, 1):
        bad.repeated(where, f"'iscrowd' must be 0 or 1, not {quoted(crowd)}", "iscrowd")
        return None
    masks = parse_segmentations(entry.get("segmentations"), video, where, report)
    boxes = _boxes(entry.get("bboxes"), video, where, report)
    areas = _areas(entry.get("areas"), video, where, report)
    if not known or not masks:
        return None
    return Annotation(identity, video, category, bool(crowd), masks, boxes, areas)


def _fits(entries: Any, length: int, key: str, where: str, report: Report) -> bool:
    if isinstance(entries, list) and len(entries) == length:
        return True
    if isinstance(entries, list):
        report(f"{where}: '{key}' has {len(entries)} entries, but the video has {length} frames")
    else:
        report(f"{where}: '{key}' must be a list with one entry per frame")
    return False


def _boxes(entries: Any, video: Video, where: str, report: Report) -> list[list[float] | None] | None:
    if not entries or not _fits(entries, video.length, "bboxes", where, report):
        return None
    boxes: list[list[float] | None] = []
    for frame, box in enumerate(entries):
        right = isinstance(box, list) and len(box) == 4 and all(map(is_number, box)) and min(box[2:]) >= 0
        if box is not None and not right:
            report(
                f"{where}, frame {frame}: a box must be x, y, width and height in pixels, not {quoted(box)}"
            )
        boxes.append(box if right else None)
    return boxes


def _areas(entries: Any, video: Video, where: str, report: Report) -> list[float] | None:
    if not entries or not _fits(entries, video.length, "areas", where, report):
        return None
    areas = []
    for frame, area in enumerate(entries):
        right = area is None or (is_number(area) and area >= 0)
        if not right:
            report(f"{where}, frame {frame}: an area must be a number of pixels, not {quoted(area)}")
        areas.append(float(area or 0) if right else 0.0)
    return areas


def _span(names: dict[int, str]) -> str:
    if not names:
        return "(there are none)"
    return f"{min(names)} to {max(names)}" if len(names) > 1 else f"({min(names)})"
