"""YOLO segmentation (Ultralytics): a text file of polygons for every frame, and data.yaml."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml

from seqformer.errors import InputError
from seqformer.formats.builder import DatasetBuilder
from seqformer.formats.checks import is_integer
from seqformer.formats.files import PICTURE_SUFFIXES, new_folder
from seqformer.formats.frames import folders_with, list_pictures
from seqformer.formats.labelled import LabelledVideo
from seqformer.formats.polygons import joined, outlines
from seqformer.formats.rle import SHORTEST_POLYGON, decode_mask, to_rle
from seqformer.formats.ytvis import Dataset

__all__ = ["read_yolo", "write_yolo"]

_DATA = "data.yaml"
_IDS = "category_ids"  # a key of data.yaml that only this module uses
_BOX = 5  # numbers: class, x, y, width and height
_MOST_CLASSES = 100_000


def read_yolo(annotations: Path, frames: Path, confidences: bool = False, track_ids: bool = False) -> Dataset:
    """Reads a dataset from YOLO segmentation labels.

    Every folder of frames is a video. Without track ids, every polygon is an instance of one frame. A frame
    without a text file has no instances.

    Args:
        annotations: the folder of data.yaml and labels/, which has a text file for each frame.
        frames: the folder of frames, with the same subfolders as labels/; usually images/.
        confidences: whether lines end with a confidence, as those of ``yolo ... save_conf=True``.
        track_ids: whether lines end with a track id, as those of ``yolo track``. It comes last.

    Raises:
        InputError: if something is missing or malformed; the message names file and line.
    """
    names, ids = _read_names(annotations / _DATA)
    builder = DatasetBuilder(frames, names)
    labels = annotations / "labels"
    if not labels.is_dir():
        raise InputError(f"no folder '{labels}'")
    folders = [("", frames)] if any(_is_picture(name) for name in os.listdir(frames)) else []
    for name, folder in folders + folders_with(frames, PICTURE_SUFFIXES):
        pictures = list_pictures(folder)
        if not pictures:
            continue
        video = builder.add_video(list(pictures.values()))
        for frame, stem in enumerate(pictures):
            path = labels / name / f"{stem}.txt"
            for number, line in enumerate(_lines(path), start=1):
                where = f"{path}, line {number}"
                try:
                    index, polygon, score, track = _parse(line, confidences, track_ids)
                    if index >= len(ids):
                        raise InputError(f"class {index}, but '{annotations / _DATA}' has {len(ids)} classes")
                    height, width = video.size
                    mask = to_rle([(polygon * (width, height)).flatten().tolist()], height, width)
                    identity = f"track {track}" if track_ids else (frame, number)
                    video.add(frame, identity, ids[index], mask, id_=track, score=score)
                except InputError as error:
                    raise InputError(f"{where}: {error}") from None
    return builder.finish()


def _is_picture(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in PICTURE_SUFFIXES and not name.startswith(".")


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except FileNotFoundError:
        return []
    except UnicodeDecodeError:
        raise InputError(f"'{path}' is not text") from None
    except OSError as error:
        raise InputError(f"cannot read '{path}': {error.strerror}") from error


def _parse(line: str, confidences: bool, track_ids: bool) -> tuple[int, np.ndarray, float | None, int | None]:
    """Returns class index, polygon (N, 2) with x and y from 0 to 1, confidence and track id of a line."""
    try:
        values = [float(word) for word in line.split()]
    except ValueError:
        values = [np.nan]
    extra = confidences + track_ids
    if not np.isfinite(values).all() or not values[0].is_integer() or values[0] < 0:
        raise InputError("a line must be: class, then x and y of at least three corners")
    if len(values) - extra == _BOX:
        raise InputError("a box is not a mask: segmentation labels are needed")
    coordinates = values[1 : len(values) - extra]
    if len(coordinates) < SHORTEST_POLYGON or len(coordinates) % 2:
        raise InputError(
            "a line must be: class, then x and y of at least three corners"
            + (", then the confidence" if confidences else "")
            + (", then the track id" if track_ids else "")
        )
    if min(coordinates) < -0.01 or max(coordinates) > 1.01:
        raise InputError("coordinates must be from 0 to 1, as parts of the frame's width and height")
    track = values[-1] if track_ids else None
    if track is not None and not track.is_integer():
        raise InputError(f"the track id {track} is not an integer")
    score = values[-1 - track_ids] if confidences else None
    polygon = np.clip(np.reshape(coordinates, (-1, 2)), 0, 1)
    return int(values[0]), polygon, score, None if track is None else int(track)


def _read_names(path: Path) -> tuple[dict[int, str], list[int]]:
    """Returns category names by id, and the category id of every class index."""
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no file '{path}'") from None
    except OSError as error:
        raise InputError(f"cannot read '{path}': {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"'{path}' is not YAML: {' '.join(str(error).split())}") from error
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if (
        not isinstance(names, dict)
        or not 0 < len(names) <= _MOST_CLASSES
        or set(names) != set(range(len(names)))
        or not all(isinstance(name, str | int | float) for name in names.values())
    ):
        raise InputError(f"'{path}': 'names' must have a name for every class from 0")
    # YAML reads a name without quotes such as `2` as a number.
    ordered = [str(names[index]) for index in range(len(names))]
    ids = content.get(_IDS) or list(range(1, len(names) + 1))
    if not isinstance(ids, list) or len(ids) != len(names) or not all(map(is_integer, ids)):
        raise InputError(f"'{path}': '{_IDS}' must have an integer for every class")
    if len(set(ids)) < len(ids):
        raise InputError(f"'{path}': two classes have the same id in '{_IDS}'")
    return dict(zip(ids, ordered, strict=True)), ids


def write_yolo(
    videos: list[LabelledVideo], names: dict[int, str], output: Path, frames: Path | None = None
) -> None:
    """Writes data.yaml and labels/ with a text file of polygons for every frame.

    The format has no track ids, scores and crowds: they are lost, and crowds are left out. It has one
    polygon per instance: several parts and holes are connected by lines without area. :func:`read_yolo` gives
    the same masks; Ultralytics also fills the pixels on these lines and on outlines.

    Args:
        videos: the videos and their instances.
        names: category names by id; the order is that of class indices. data.yaml also has the ids.
        output: a new folder.
        frames: the folder of frames, to link them as images/, where Ultralytics looks for them; None for no
            links.

    Raises:
        InputError: if the folder exists or cannot be written, or a frame is missing.
    """
    indices = {id_: index for index, id_ in enumerate(names)}
    data = {
        "train": "images",
        "val": "images",
        "names": dict(enumerate(names.values())),
        _IDS: list(names),
    }
    with new_folder(output) as folder:
        text = yaml.safe_dump(data, allow_unicode=True, sort_keys=False)
        (folder / _DATA).write_text(text, encoding="utf-8")
        for labelled in videos:
            size = labelled.video.width, labelled.video.height
            for frame, name in enumerate(labelled.video.names):
                lines = []
                for instance in labelled.instances:
                    mask = instance.masks[frame]
                    if mask is not None and not instance.crowd:
                        polygon = joined(outlines(decode_mask(mask).astype(bool)))
                        numbers = (polygon / size).flatten().tolist()
                        words = " ".join(f"{number:.7g}" for number in numbers)
                        lines.append(f"{indices[instance.category]} {words}\n")
                path = PurePosixPath(name.replace("\\", "/"))
                text_file = folder / "labels" / path.with_suffix(".txt")
                text_file.parent.mkdir(parents=True, exist_ok=True)
                if text_file.exists():
                    raise InputError(f"two frames are called '{path.with_suffix('')}'")
                text_file.write_text("".join(lines), encoding="ascii")
                if frames is not None:
                    _link(frames / path, folder / "images" / path)


def _link(source: Path, target: Path) -> None:
    if not source.is_file():
        raise InputError(f"no frame '{source}'")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source.resolve())
