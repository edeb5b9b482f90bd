"""labelme: one JSON of shapes for every frame. ``group_id`` is the instance."""

from __future__ import annotations

import base64
import binascii
import io
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as mask_api

from seqformer.errors import InputError
from seqformer.formats.builder import DatasetBuilder, VideoBuilder
from seqformer.formats.checks import is_integer, is_number, objects, quoted, refuse
from seqformer.formats.files import new_folder, read_json, write_json
from seqformer.formats.frames import UNREADABLE, folders_with
from seqformer.formats.labelled import LabelledVideo
from seqformer.formats.meta import META, Meta, MetaObject, MetaVideo, read_meta, write_meta
from seqformer.formats.polygons import area, outlines
from seqformer.formats.rle import decode_mask, encode_masks, to_rle
from seqformer.formats.ytvis import Dataset
from seqformer.structures import RLE

__all__ = ["read_labelme", "write_labelme"]

_VERSION = "5.5.0"  # of labelme, whose format this is


def read_labelme(annotations: Path, frames: Path, meta: Path | None = None) -> Dataset:
    """Reads a dataset from labelme's JSON files.

    Shapes with the same label and ``group_id`` are one instance, in a frame and in all frames of a video. A
    shape without a ``group_id`` is an instance of one frame. Only frames that have a JSON are used.

    Args:
        annotations: folder with a subfolder of JSON files per video, or with the JSON files of one video.
        frames: folder of frames, with the same subfolders. Frames are named like the JSON files. It can be
            the same folder.
        meta: the meta.json of :func:`write_labelme`, with ids of categories and videos, and scores. Without
            it, the ids of categories follow the order of their names.

    Raises:
        InputError: if something is missing, inconsistent or not supported; the message names file and shape.
    """
    folders = [("", annotations), *folders_with(annotations, {".json"})]
    files = {name: paths for name, folder in folders if (paths := _json_files(folder, bool(name)))}
    if meta is None:
        labels = sorted({shape["label"] for paths in files.values() for p in paths for shape in _shapes(p)})
        described = Meta(annotations, dict(enumerate(labels, start=1)), {})
    else:
        described = read_meta(meta)
    builder = DatasetBuilder(frames, described.names)
    categories = {name: id_ for id_, name in described.names.items()}
    for name, paths in files.items():
        entry = described.video(name)
        pictures = builder.pictures(name, entry)
        known = {path.stem: path for path in paths}
        if len(known) < len(paths):
            raise InputError(f"'{paths[0].parent}': two files have the same name but for their suffix")
        missing = [str(path) for stem, path in known.items() if stem not in pictures]
        if missing:
            raise InputError(f"'{missing[0]}' has no frame in '{frames / name}'")
        used = [stem for stem in pictures if stem in known]
        video = builder.add_video([pictures[stem] for stem in used], entry.id)
        for frame, stem in enumerate(used):
            _add_shapes(video, frame, known[stem], categories, entry)
    return builder.finish()


def _json_files(folder: Path, is_video: bool) -> list[Path]:
    """Returns the JSON files in a folder, without a meta.json for all videos."""
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise InputError(f"cannot read the folder '{folder}': {error.strerror}") from error
    return [folder / n for n in names if n.lower().endswith(".json") and (is_video or n != META)]


def _shapes(path: Path) -> Iterator[dict[str, Any]]:
    """Reads the shapes of a JSON file, all of which have a label and maybe a group."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: not an object with 'shapes'")
    for number, shape in enumerate(objects(content, "shapes", str(path), refuse, "labelme")):
        label, group = shape.get("label"), shape.get("group_id")
        if not isinstance(label, str):
            raise InputError(f"{path}, shape {number}: no 'label'")
        if group is not None and not is_integer(group):
            raise InputError(f"{path}, shape {number}: 'group_id' must be an integer, not {quoted(group)}")
        yield shape


def _add_shapes(
    video: VideoBuilder, frame: int, path: Path, categories: dict[str, int], entry: MetaVideo
) -> None:
    parts: dict[tuple[str, str], list[RLE]] = {}
    groups: dict[tuple[str, str], int | None] = {}
    for number, shape in enumerate(_shapes(path)):
        where, label, group = f"{path}, shape {number}", shape["label"], shape.get("group_id")
        if label not in categories:
            raise InputError(f"{where}: '{label}' is not one of the categories: {', '.join(categories)}")
        try:
            mask = _mask(shape, video.size)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        identity = label, f"{path.stem}, {number}" if group is None else f"group {group}"
        groups[identity] = group
        if mask is not None:
            parts.setdefault(identity, []).append(mask)
    for identity, masks in parts.items():
        group = groups[identity]
        whole = mask_api.merge(masks)
        mask = {"size": masks[0]["size"], "counts": whole["counts"].decode("ascii")}
        known = MetaObject(0) if group is None else entry.objects.get(group, MetaObject(0, group))
        video.add_object(frame, identity, replace(known, category=categories[identity[0]]), mask)


def _mask(shape: dict[str, Any], size: tuple[int, int]) -> RLE | None:
    kind, points = shape.get("shape_type") or "polygon", shape.get("points")
    if kind not in ("polygon", "mask"):
        raise InputError(f"a {kind} is not a mask: draw a polygon or a mask")
    if not isinstance(points, list) or not all(
        isinstance(point, list) and len(point) == 2 and all(map(is_number, point)) for point in points
    ):
        raise InputError("'points' must be a list of [x, y] in pixels")
    if kind == "polygon":
        return to_rle([[number for point in points for number in point]], *size)
    if len(points) != 2 or not all(abs(number) < max(size) + 1 for point in points for number in point):
        raise InputError("a mask needs two points inside the frame, its first and its last pixel")
    (left, top), (right, bottom) = ((int(x), int(y)) for x, y in points)
    height, width = size
    if not (0 <= left <= right < width and 0 <= top <= bottom < height):
        raise InputError("a mask needs two points inside the frame, its first and its last pixel")
    mask = np.zeros((1, height, width), dtype=bool)
    window = _decode(shape.get("mask"), (bottom - top + 1, right - left + 1))
    mask[0, top : bottom + 1, left : right + 1] = window
    return encode_masks(mask)[0]


def _decode(png: Any, size: tuple[int, int]) -> np.ndarray:
    """Returns the pixels (H, W) bool of a PNG in base 64, whose size is checked before it is decoded."""
    if not isinstance(png, str):
        raise InputError("'mask' must be a PNG in base 64")
    try:
        with Image.open(io.BytesIO(base64.b64decode(png, validate=True)), formats=["PNG"]) as image:
            if (image.height, image.width) != size:
                raise InputError(
                    f"the mask is {image.width}x{image.height} pixels, but its points are for "
                    f"{size[1]}x{size[0]}"
                )
            if len(image.getbands()) > 1:
                raise InputError(f"the mask is in colour (mode {image.mode})")
            return np.asarray(image) > 0
    except InputError:
        raise
    except (binascii.Error, *UNREADABLE) as error:
        raise InputError(f"'mask' is not a PNG in base 64: {' '.join(str(error).split())}") from None


def write_labelme(
    videos: list[LabelledVideo],
    names: dict[int, str],
    output: Path,
    frames: Path | None = None,
    polygons: bool = False,
) -> None:
    """Writes a JSON for every frame, in a subfolder per video, and a meta.json.

    ``group_id`` is the id of the annotation or, for results, a number that is unique in the dataset.

    Args:
        videos: the videos and their instances.
        names: category names by id.
        output: a new folder.
        frames: the folder of frames, so that the files can name them and labelme finds them; None if the
            files will be moved next to the frames.
        polygons: write polygons, which are easier to edit, instead of masks. Their holes are lost.

    Raises:
        InputError: if the folder exists or cannot be written.
    """
    with new_folder(output) as folder:
        for labelled in videos:
            (folder / labelled.folder).mkdir(parents=True, exist_ok=True)
            for frame, (stem, name) in enumerate(zip(labelled.stems, labelled.video.names, strict=True)):
                shapes = []
                for instance in labelled.instances:
                    mask = instance.masks[frame]
                    for shape in [] if mask is None else _drawn(mask, polygons):
                        label = {"label": names[instance.category], "group_id": instance.id}
                        shapes.append(label | {"description": "", "flags": {}, "mask": None} | shape)
                content: dict[str, Any] = {
                    "version": _VERSION,
                    "flags": {},
                    "shapes": shapes,
                    "imagePath": _image_path(name, frames, output / labelled.folder),
                    "imageData": None,
                    "imageHeight": labelled.video.height,
                    "imageWidth": labelled.video.width,
                }
                write_json(folder / labelled.folder / f"{stem}.json", content)
        write_meta(folder, names, ((v.folder, v, [i.id for i in v.instances]) for v in videos))


def _image_path(name: str, frames: Path | None, folder: Path) -> str:
    if frames is None:
        return Path(name).name
    return Path(os.path.relpath(frames.resolve() / name, folder.resolve())).as_posix()


def _drawn(rle: RLE, polygons: bool) -> list[dict[str, Any]]:
    """Returns the shapes of a mask, without labels."""
    mask = decode_mask(rle).astype(bool)
    if polygons:
        parts = [polygon for polygon in outlines(mask) if area(polygon) > 0]
        return [{"shape_type": "polygon", "points": part.tolist()} for part in parts]
    left, top, width, height = (int(number) for number in mask_api.toBbox(rle))
    window = mask[top : top + height, left : left + width]
    png = io.BytesIO()
    Image.fromarray(window.astype(np.uint8)).save(png, format="PNG")
    return [
        {
            "shape_type": "mask",
            "points": [[left, top], [left + width - 1, top + height - 1]],
            "mask": base64.b64encode(png.getvalue()).decode("ascii"),
        }
    ]
