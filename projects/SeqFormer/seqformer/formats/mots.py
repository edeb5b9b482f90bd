"""MOTS (KITTI-MOTS and MOTSChallenge): one text file or folder of 16-bit PNGs per sequence."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from seqformer.errors import InputError
from seqformer.formats.builder import DatasetBuilder, VideoBuilder
from seqformer.formats.files import new_folder
from seqformer.formats.frames import frame_number, list_pictures, subfolders
from seqformer.formats.labelled import LabelledVideo, paint_ids
from seqformer.formats.rle import encode_masks, to_rle
from seqformer.formats.ytvis import Dataset
from seqformer.structures import RLE

__all__ = ["MOTS_CLASSES", "read_mots", "write_mots"]

MOTS_CLASSES = {1: "car", 2: "pedestrian"}
_IGNORE_CLASS = 10
_IDS_PER_CLASS = 1000  # object id = class * 1000 + number within the class
_FIELDS = 6  # frame, object, class, height, width, RLE


def read_mots(annotations: Path, frames: Path, classes: dict[int, str], keep_ignored: bool = True) -> Dataset:
    """Reads a dataset from MOTS annotations.

    Args:
        annotations: folder with NAME.txt, NAME/gt/gt.txt or a subfolder NAME of PNGs for each sequence.
        frames: folder with frames in NAME/ or NAME/img1/, named by the frame number that the annotations use
            (from 0 in KITTI-MOTS, from 1 in MOTSChallenge). With PNGs, only frames that have one are used.
        classes: names by class id. Class ids become category ids.
        keep_ignored: turn ignored regions (class 10, id 10000) into crowd annotations, one per category,
            because a YouTube-VIS crowd applies to one category only. Otherwise drop them.

    Raises:
        InputError: if something is missing or inconsistent; the message names file, line or frame, and
            object.
    """
    builder = DatasetBuilder(frames, classes)
    for name, source in _sequences(annotations):
        folder = frames / name
        folder = folder / "img1" if (folder / "img1").is_dir() else folder
        pictures = {frame_number(path): path for path in list_pictures(folder).values()}
        if source.is_dir():
            _add_pngs(builder, source, pictures, classes, keep_ignored)
        else:
            _add_text(builder, source, pictures, classes, keep_ignored)
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
    classes: dict[int, str],
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
    video = builder.add_video(list(pictures.values()))
    places = {number: place for place, number in enumerate(pictures)}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        fields = line.split()
        if len(fields) != _FIELDS or not all(field.isdecimal() for field in fields[:-1]):
            raise InputError(f"{where}: a line must be: frame, object, class, height, width, RLE")
        frame, object_, class_, height, width = map(int, fields[:-1])
        if frame not in places:
            raise InputError(f"{where}: there is no frame {frame}")
        if class_ != _IGNORE_CLASS and class_ not in classes:
            raise InputError(
                f"{where}: object {object_} has class {class_}; known classes are {_known(classes)}"
            )
        try:
            mask = to_rle({"size": [height, width], "counts": fields[-1]}, *video.size)
            if class_ == _IGNORE_CLASS:
                if keep_ignored:
                    _add_ignored(video, places[frame], mask, classes)
            else:
                video.add(places[frame], object_, class_, mask)
        except InputError as error:
            raise InputError(f"{where}: frame {frame}, object {object_}: {error}") from None


def _add_pngs(
    builder: DatasetBuilder,
    folder: Path,
    pictures: dict[int, Path],
    classes: dict[int, str],
    keep_ignored: bool,
) -> None:
    pngs = {frame_number(path): path for path in list_pictures(folder).values()}
    for number, path in pngs.items():
        if number not in pictures:
            raise InputError(f"'{path}' has no frame")
    video = builder.add_video([pictures[number] for number in pngs])
    for frame, path in enumerate(pngs.values()):
        ids = video.read_ids(path)
        known = {}
        for id_ in np.unique(ids).tolist():
            class_ = id_ // _IDS_PER_CLASS
            if class_ in classes:
                known[id_] = class_
            elif id_ and class_ != _IGNORE_CLASS:
                raise InputError(
                    f"'{path}': object {id_} has class {class_}; known classes are {_known(classes)}"
                )
        video.add_ids(frame, ids, known)
        ignored = encode_masks((ids // _IDS_PER_CLASS == _IGNORE_CLASS)[None])[0]
        if keep_ignored and ignored is not None:
            _add_ignored(video, frame, ignored, classes)


def _add_ignored(video: VideoBuilder, frame: int, mask: RLE | None, classes: dict[int, str]) -> None:
    for class_, name in classes.items():
        video.add(frame, f"ignored region of {name}", class_, mask, crowd=True)


def _known(classes: dict[int, str]) -> str:
    return ", ".join(f"{id_} ({name})" for id_, name in classes.items())


def write_mots(videos: list[LabelledVideo], output: Path) -> None:
    """Writes one text file per video, named after the folder of its frames.

    MOTS allows no overlap, so the instance with the higher score gets the pixels. The class is the dataset's
    category id. Frame numbers are taken from the file names; if a name is not a number, frames are counted
    from 0.

    Args:
        videos: the videos and their results.
        output: a new folder.

    Raises:
        InputError: if a video has more than 999 instances of a class, two videos have the same name, or the
            folder exists or cannot be written.
    """
    written: dict[str, int] = {}
    with new_folder(output) as folder:
        for labelled in videos:
            video = labelled.video
            name = _sequence_name(labelled.folder)
            if name in written:
                raise InputError(f"videos {written[name]} and {video.id} are both called '{name}'")
            written[name] = video.id
            counts: dict[int, int] = {}
            classes: dict[int, int] = {}  # by object, in the order of the instances
            for instance in labelled.instances:
                counts[instance.category] = counts.get(instance.category, 0) + 1
                if counts[instance.category] >= _IDS_PER_CLASS:
                    raise InputError(f"video {video.id}: too many instances: raise `score_threshold`")
                classes[instance.category * _IDS_PER_CLASS + counts[instance.category]] = instance.category
            numbered = all(stem.isdecimal() for stem in labelled.stems)
            lines = []
            for place, stem in enumerate(labelled.stems):
                picture = paint_ids(labelled, place, list(classes))
                objects = np.unique(picture[picture > 0])
                masks = encode_masks(picture[None] == objects[:, None, None])
                number = int(stem) if numbered else place
                lines += [
                    f"{number} {object_} {classes[object_]} {video.height} {video.width} {mask['counts']}\n"
                    for object_, mask in zip(objects.tolist(), masks, strict=True)
                    if mask
                ]
            (folder / f"{name}.txt").write_text("".join(lines), encoding="ascii")


def _sequence_name(folder: str) -> str:
    parts = folder.split("/")
    if parts[-1] == "img1" and len(parts) > 1:
        parts.pop()
    return parts[-1]
