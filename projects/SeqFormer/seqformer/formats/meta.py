"""meta.json: what a folder of annotations cannot say itself, so that it can be read back without loss.

The format is that of YouTube-VOS, where videos have objects and objects have categories, with more keys: ids
of categories, ids and file names of videos, and id, score and ``iscrowd`` of objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seqformer.errors import InputError
from seqformer.formats.checks import is_integer, is_number, quoted
from seqformer.formats.files import read_json, write_json
from seqformer.formats.labelled import LabelledVideo
from seqformer.formats.ytvis import category_entries, parse_categories

__all__ = ["META", "Meta", "MetaObject", "MetaVideo", "find_meta", "read_meta", "write_meta"]

META = "meta.json"


@dataclass
class MetaObject:
    """An object of a video; id and score are None if the file does not give them."""

    category: int
    id: int | None = None
    score: float | None = None
    crowd: bool = False


@dataclass
class MetaVideo:
    """A video.

    Attributes:
        objects: by the number that the annotations use.
        id: None if the file does not give it.
        names: file names of the frames relative to the folder of frames; None if the file does not give them.
    """

    objects: dict[int, MetaObject] = field(default_factory=dict)
    id: int | None = None
    names: list[str] | None = None


@dataclass
class Meta:
    """The content of a meta.json: category names by id, and videos by the name that the annotations use."""

    path: Path
    names: dict[int, str]
    videos: dict[str, MetaVideo]

    def video(self, name: str) -> MetaVideo:
        """Returns a video; an empty one if the file does not have it."""
        return self.videos.get(name) or MetaVideo()


def write_meta(
    folder: Path, names: dict[int, str], videos: Iterable[tuple[str, LabelledVideo, Sequence[int]]]
) -> None:
    """Writes a meta.json.

    Args:
        folder: the folder to write it in.
        names: category names by id.
        videos: for each video the name and the numbers of its instances in the annotations.

    Raises:
        InputError: if the file cannot be written.
    """
    entries = {}
    for name, labelled, numbers in videos:
        objects = {}
        for number, instance in zip(numbers, labelled.instances, strict=True):
            entry: dict[str, Any] = {"category": names[instance.category], "id": instance.id}
            if instance.score is not None:
                entry["score"] = instance.score
            if instance.crowd:
                entry["iscrowd"] = 1
            objects[str(number)] = entry
        entries[name] = {
            "id": labelled.video.id,
            "file_names": labelled.video.names,
            "objects": objects,
        }
    write_json(folder / META, {"categories": category_entries(names), "videos": entries})


def find_meta(folder: Path) -> Path | None:
    """Returns the meta.json in a folder, if :func:`write_meta` may have written it."""
    path = folder / META
    if not path.is_file():
        return None
    content = read_json(path)
    return path if isinstance(content, dict) and {"categories", "videos"} <= content.keys() else None


def read_meta(path: Path) -> Meta:
    """Reads a meta.json of :func:`write_meta` or of YouTube-VOS.

    Without "categories", the ids of categories follow the order of their names.

    Raises:
        InputError: if something is missing or malformed.
    """
    content = read_json(path)
    try:
        named = {
            video: {int(number): str(entry["category"]) for number, entry in described["objects"].items()}
            for video, described in content["videos"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"'{path}' is not YouTube-VOS's meta.json: every object of a video needs a 'category'"
        ) from error
    used = sorted({name for objects in named.values() for name in objects.values()})
    names = dict(enumerate(used, start=1))
    if "categories" in content:
        names = parse_categories(content, str(path))
    ids = {name: id_ for id_, name in names.items()}
    unknown = [name for name in used if name not in ids]
    if unknown:
        raise InputError(f"'{path}': '{unknown[0]}' is not among its 'categories'")
    videos = {}
    for video, described in content["videos"].items():
        where = f"'{path}': video '{video}'"
        frames = described.get("file_names")
        if frames is not None and not (
            isinstance(frames, list) and frames and all(isinstance(name, str) for name in frames)
        ):
            raise InputError(f"{where}: 'file_names' must be a list of at least one name")
        objects = {
            number: _object(ids[named[video][number]], entry, f"{where}, object {number}")
            for number, entry in ((int(number), entry) for number, entry in described["objects"].items())
        }
        if len(objects) < len(described["objects"]):
            raise InputError(f"{where}: two objects have the same number")
        videos[video] = MetaVideo(objects, _id(described, where), frames)
    return Meta(path, names, videos)


def _object(category: int, entry: dict[str, Any], where: str) -> MetaObject:
    score = entry.get("score")
    if score is not None and not is_number(score):
        raise InputError(f"{where}: 'score' must be a number, not {quoted(score)}")
    return MetaObject(category, _id(entry, where), score, bool(entry.get("iscrowd")))


def _id(entry: dict[str, Any], where: str) -> int | None:
    id_ = entry.get("id")
    if id_ is not None and not is_integer(id_):
        raise InputError(f"{where}: 'id' must be an integer, not {quoted(id_)}")
    return id_
