"""MOTS (KITTI-MOTS and MOTSChallenge): one text file or folder of 16-bit PNGs per sequence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from seqformer.errors import InputError
from seqformer.formats.builder import DatasetBuilder, VideoBuilder
from seqformer.formats.files import new_folder
from seqformer.formats.frames import frame_number, list_pictures, subfolders
from seqformer.formats.labelled import LabelledVideo, paint_ids
from seqformer.formats.meta import Meta, MetaObject, MetaVideo, read_meta, write_meta
from seqformer.formats.rle import encode_masks, to_rle
from seqformer.formats.ytvis import Dataset
from seqformer.structures import RLE

__all__ = ["MOTS_CLASSES", "read_mots", "write_mots"]

MOTS_CLASSES = {1: "car", 2: "pedestrian"}
_IGNORE_CLASS = 10
_IDS_PER_CLASS = 1000  # object id = class * 1000 + number within the class
_IGNORED = _IGNORE_CLASS * _IDS_PER_CLASS
_LARGEST_CLASS = 2**31 // _IDS_PER_CLASS - 1
_MOST_DIGITS = 16
_FIELDS = 6  # frame, object, class, height, width, RLE


def read_mots(
    annotations: Path,
    frames: Path,
    classes: dict[int, str] | None = None,
    keep_ignored: bool = True,
    meta: Path | None = None,
) -> Dataset:
    """Reads a dataset from MOTS annotations.

    Args:
        annotations: folder with NAME.txt, NAME/gt/gt.txt or a subfolder NAME of PNGs for each sequence.
        frames: folder with frames in NAME/ or NAME/img1/, named by the frame number that the annotations use
            (from 0 in KITTI-MOTS, from 1 in MOTSChallenge). With PNGs, only frames that have one are used.
        classes: names by class id. Class ids become category ids. By default those of ``meta`` or, without
            it, :data:`MOTS_CLASSES`.
        keep_ignored: turn ignored regions (class 10, id 10000) into crowd annotations, one per category,
            because a YouTube-VIS crowd applies to one category only. Otherwise drop them. If 10 is one of the
            classes, there are no ignored regions.
        meta: the meta.json of :func:`write_mots`, with names of categories and frames, and ids of videos and
            instances.

    Raises:
        InputError: if something is missing or inconsistent; the message names file, line or frame, and
            object.
    """
    described = Meta(annotations, MOTS_CLASSES, {}) if meta is None else read_meta(meta)
    builder = DatasetBuilder(frames, described.names if classes is None else classes)
    for name, source in _sequences(annotations):
        entry = described.video(name)
        folder = f"{name}/img1" if (frames / name / "img1").is_dir() else name
        pictures = builder.pictures(folder, entry)
        if entry.names is None:
            numbered = _by_number(pictures.values())
        else:
            numbered = dict(zip(_numbers(list(pictures)), pictures.values(), strict=True))
        add = _add_pngs if source.is_dir() else _add_text
        add(builder, source, numbered, entry, keep_ignored)
    return builder.finish()


def _sequences(annotations: Path) -> list[tuple[str, Path]]:
    """Returns the name of each sequence, with its text file or folder of PNGs."""
    sources: dict[str, Path] = {}
    for folder in subfolders(annotations):
        text = folder / "gt" / "gt.txt"
        if text.is_file():
            sources[folder.name] = text
        elif any(folder.glob("*.png")):
            sources[folder.name] = folder
    for text in annotations.glob("*.txt"):
        if text.stem in sources:
            raise InputError(f"'{text}' and '{sources[text.stem]}' annotate the same sequence")
        sources[text.stem] = text
    if not sources:
        raise InputError(f"'{annotations}': no NAME.txt, NAME/gt/gt.txt or folder of PNGs")
    return sorted(sources.items())


def _add_text(
    builder: DatasetBuilder,
    path: Path,
    pictures: dict[int, Path],
    entry: MetaVideo,
    keep_ignored: bool,
) -> None:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"'{path}' is not MOTS text") from None
    except OSError as error:
        raise InputError(f"cannot read '{path}': {error.strerror}") from error
    if not pictures:
        raise InputError(f"'{path}': there are no frames for it")
    classes = builder.names
    video = builder.add_video(list(pictures.values()), entry.id)
    places = {number: place for place, number in enumerate(pictures)}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        fields = line.split()
        numbers = fields[:-1]
        if len(fields) != _FIELDS or not all(n.isdecimal() and len(n) < _MOST_DIGITS for n in numbers):
            raise InputError(f"{where}: a line must be: frame, object, class, height, width, RLE")
        frame, object_, class_, height, width = map(int, numbers)
        if frame not in places:
            raise InputError(f"{where}: there is no frame {frame}")
        ignored = class_ == _IGNORE_CLASS and class_ not in classes
        if not ignored and class_ not in classes:
            raise InputError(
                f"{where}: object {object_} has class {class_}; known classes are {_known(classes)}"
            )
        try:
            mask = to_rle({"size": [height, width], "counts": fields[-1]}, *video.size)
            if not ignored:
                described = entry.objects.get(object_) or MetaObject(class_)
                video.add_object(places[frame], object_, replace(described, category=class_), mask)
            elif keep_ignored:
                _add_ignored(video, places[frame], mask, classes)
        except InputError as error:
            raise InputError(f"{where}: frame {frame}, object {object_}: {error}") from None


def _add_pngs(
    builder: DatasetBuilder,
    folder: Path,
    pictures: dict[int, Path],
    entry: MetaVideo,
    keep_ignored: bool,
) -> None:
    pngs = _by_number(list_pictures(folder).values())
    for number, path in pngs.items():
        if number not in pictures:
            raise InputError(f"'{path}' has no frame")
    classes = builder.names
    ignore_class = None if _IGNORE_CLASS in classes else _IGNORE_CLASS
    video = builder.add_video([pictures[number] for number in pngs], entry.id)
    for frame, path in enumerate(pngs.values()):
        ids = video.read_ids(path)
        known = {}
        for id_ in np.unique(ids).tolist():
            class_ = id_ // _IDS_PER_CLASS
            if id_ and class_ in classes:
                known[id_] = replace(entry.objects.get(id_) or MetaObject(class_), category=class_)
            elif id_ and class_ != ignore_class:
                raise InputError(
                    f"'{path}': object {id_} has class {class_}; known classes are {_known(classes)}"
                )
        video.add_ids(frame, ids, known)
        if keep_ignored and ignore_class is not None:
            ignored = encode_masks((ids // _IDS_PER_CLASS == ignore_class)[None])[0]
            _add_ignored(video, frame, ignored, classes)


def _by_number(paths: Iterable[Path]) -> dict[int, Path]:
    """Returns pictures by the frame number in their names."""
    numbered: dict[int, Path] = {}
    for path in paths:
        number = frame_number(path)
        if number in numbered:
            raise InputError(f"'{numbered[number]}' and '{path}' have the same frame number")
        numbered[number] = path
    return numbered


def _add_ignored(video: VideoBuilder, frame: int, mask: RLE | None, classes: dict[int, str]) -> None:
    for class_, name in classes.items():
        video.add(frame, f"ignored region of {name}", class_, mask, crowd=True)


def _known(classes: dict[int, str]) -> str:
    return ", ".join(f"{id_} ({name})" for id_, name in classes.items())


def write_mots(videos: list[LabelledVideo], names: dict[int, str], output: Path) -> None:
    """Writes one text file per video, named after the folder of its frames, and a meta.json.

    MOTS allows no overlap, so the first instance gets the pixels: that with the highest score. The class is
    the dataset's category id. Crowds become ignored regions, which apply to all classes. Frame numbers are
    taken from the file names; if they are not different numbers, frames are counted from 0.

    Args:
        videos: the videos and their instances.
        names: category names by id.
        output: a new folder.

    Raises:
        InputError: if a video has more than 999 instances of a class, two videos have the same name, a
            category id is negative or very large, the dataset has crowds and a category 10, or the folder
            exists or cannot be written.
    """
    for id_ in (min(names), max(names)):
        if not 0 <= id_ <= _LARGEST_CLASS:
            raise InputError(f"MOTS needs class ids from 0 to {_LARGEST_CLASS}, but '{names[id_]}' has {id_}")
    written: dict[str, LabelledVideo] = {}
    numbers: dict[str, list[int]] = {}
    with new_folder(output) as folder:
        for labelled in videos:
            video = labelled.video
            name = _sequence_name(labelled.folder)
            if name in written:
                raise InputError(f"videos {written[name].video.id} and {video.id} are both called '{name}'")
            written[name] = labelled
            objects = numbers[name] = _objects(labelled, names)
            classes = {o: i.category for o, i in zip(objects, labelled.instances, strict=True)}
            lines = []
            for place, number in enumerate(_numbers(labelled.stems)):
                picture = paint_ids(labelled, place, objects)
                for object_ in np.unique(picture[picture > 0]).tolist():
                    mask = encode_masks((picture == object_)[None])[0]
                    class_ = _IGNORE_CLASS if object_ == _IGNORED else classes[object_]
                    if mask is not None:
                        size = f"{video.height} {video.width}"
                        lines.append(f"{number} {object_} {class_} {size} {mask['counts']}\n")
            (folder / f"{name}.txt").write_text("".join(lines), encoding="ascii")
        write_meta(folder, names, ((name, video, numbers[name]) for name, video in written.items()))


def _objects(labelled: LabelledVideo, names: dict[int, str]) -> list[int]:
    """Returns the object id of each instance of a video."""
    objects: list[int] = []
    counts: dict[int, int] = {}
    for instance in labelled.instances:
        category = instance.category
        if instance.crowd:
            if _IGNORE_CLASS in names:
                raise InputError(
                    f"MOTS keeps class {_IGNORE_CLASS} for crowds, but it is '{names[_IGNORE_CLASS]}' here"
                )
            objects.append(_IGNORED)
            continue
        counts[category] = counts.get(category, 0) + 1
        if counts[category] >= _IDS_PER_CLASS:
            raise InputError(f"video {labelled.video.id}: too many instances: raise `score_threshold`")
        objects.append(category * _IDS_PER_CLASS + counts[category])
    return objects


def _numbers(stems: list[str]) -> list[int]:
    """Returns the frame numbers in file names, or those counted from 0 if they are not different numbers."""
    numbers = [int(stem) for stem in stems if stem.isdecimal() and len(stem) < _MOST_DIGITS]
    return numbers if len(set(numbers)) == len(stems) else list(range(len(stems)))


def _sequence_name(folder: str) -> str:
    parts = folder.split("/")
    if parts[-1] == "img1" and len(parts) > 1:
        parts.pop()
    return parts[-1]
