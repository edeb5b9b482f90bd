"""CVAT for video 1.1: one XML file per task, with a track for every object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from seqformer.errors import InputError
from seqformer.formats.builder import DatasetBuilder, VideoBuilder
from seqformer.formats.files import new_folder, read_xml, write_json
from seqformer.formats.labelled import LabelledVideo
from seqformer.formats.meta import Meta, MetaObject, read_meta, write_meta
from seqformer.formats.rle import decode_mask, encode_masks, to_rle
from seqformer.formats.ytvis import Dataset
from seqformer.structures import RLE

__all__ = ["read_cvat", "write_cvat"]

_SHAPES = {"polygon", "mask", "box"}
_INSTANCE = "instance"  # the attribute of shapes
_LABELS = "labels.json"
_MOST_DIGITS = 16  # of a count
_WITHOUT_AREA = {"polyline", "points", "skeleton", "cuboid", "ellipse", "tag"}


@dataclass
class _Shape:
    """The shape of a track in a frame.

    Attributes:
        kind: "polygon", "mask" or "box".
        outside: whether the object has left the frame.
        points: (N, 2) xy in pixels, the corners of a polygon or the four of a box; (0, 2) for a mask.
        element: the XML element that masks are read from.
    """

    kind: str
    outside: bool
    points: np.ndarray
    element: ElementTree.Element


@dataclass
class _Task:
    """The labels of a task, and the frames of the source video that it contains.

    Attributes:
        size: number of frames; None if the file does not give it.
        start, step: first frame number in tracks, and the difference between consecutive ones.
    """

    labels: list[str]
    size: int | None
    start: int
    step: int


def read_cvat(
    xml_files: list[Path], frames: Path, fill_boxes: bool = False, meta: Path | None = None
) -> Dataset:
    """Reads a dataset from CVAT's XML.

    Polygons and masks become masks. "outside" objects have no mask; "occluded" objects keep theirs. CVAT
    exports a shape for every frame. If a track has gaps, polygons and boxes are interpolated corner by
    corner, and masks are repeated. The last shape is repeated until the end of the video, unless it is
    outside. Tracks of a label whose attribute "instance" has the same number are one instance.

    Args:
        xml_files: one export per task. Label names become categories.
        frames: the folder of frames; with several tasks, it has one subfolder per task, named like the XML
            file. Frames sorted by name must correspond to the frames of the task.
        fill_boxes: turn boxes into filled rectangles. Otherwise a box raises an error.
        meta: the meta.json of :func:`write_cvat`, with names of frames, ids of categories and videos, and
            scores. Without it, ids of categories follow the order of labels.

    Raises:
        InputError: if something is missing, inconsistent or not supported; the message names file, track and
            frame.
    """
    roots = [(path, _parse(path)) for path in xml_files]
    tasks = [_task(path, root) for path, root in roots]
    labels = dict.fromkeys(label for task in tasks for label in task.labels)
    described = Meta(frames, dict(enumerate(labels, start=1)), {}) if meta is None else read_meta(meta)
    builder = DatasetBuilder(frames, described.names)
    categories = {label: id_ for id_, label in described.names.items()}
    unknown = [label for label in labels if label not in categories]
    if unknown:
        raise InputError(f"'{meta}': the label '{unknown[0]}' is not among its 'categories'")
    for (path, root), task in zip(roots, tasks, strict=True):
        entry = described.video(_name(path, meta))
        folder = path.stem if len(xml_files) > 1 else ""
        pictures = list(builder.pictures(folder, entry).values())
        if not pictures:
            raise InputError(f"'{frames / folder}': no frames for '{path}'")
        if task.size is not None and task.size != len(pictures):
            raise InputError(f"'{path}' has {task.size} frames, but '{frames / folder}' has {len(pictures)}")
        video = builder.add_video(pictures, entry.id)
        for number, track in enumerate(root.iter("track")):
            where = f"{path}: track {track.get('id')}"
            label = track.get("label", "")
            if label not in task.labels:
                raise InputError(f"{where}: there is no label '{label}' in the task")
            instance = _instance(track)
            identity = number if instance is None else f"instance {instance} of label '{label}'"
            known = (
                MetaObject(0) if instance is None else entry.objects.get(instance, MetaObject(0, instance))
            )
            object_ = replace(known, category=categories[label])
            for frame, mask in _masks(track, video, task, fill_boxes, where):
                try:
                    video.add_object(frame, identity, object_, mask)
                except InputError as error:
                    raise InputError(f"{where}: {error}") from None
    return builder.finish()


def _instance(track: ElementTree.Element) -> int | None:
    """Returns the number in the attribute "instance" of a track's first shape."""
    shape = next(iter(track), None)
    attributes = [] if shape is None else shape.findall("attribute")
    texts = [(a.text or "").strip() for a in attributes if a.get("name") == _INSTANCE]
    return int(texts[0]) if texts and _is_count(texts[0]) else None


def _name(path: Path, meta: Path | None) -> str:
    """Returns the name of a task's video: the path of the XML from the folder of meta.json."""
    if meta is not None and path.is_relative_to(meta.parent):
        return path.relative_to(meta.parent).with_suffix("").as_posix()
    return path.stem


def _parse(path: Path) -> ElementTree.Element:
    root = read_xml(path)
    if root.tag != "annotations":
        raise InputError(f"'{path}' is not CVAT's XML: its root is '{root.tag}', not 'annotations'")
    if root.find("image") is not None:
        raise InputError(f"'{path}' is CVAT for images: export the task as 'CVAT for video 1.1'")
    return root


def _task(path: Path, root: ElementTree.Element) -> _Task:
    meta = next((m for kind in ("task", "job") if (m := root.find(f"meta/{kind}")) is not None), None)
    if meta is None:
        raise InputError(f"'{path}': no <meta> of a task or job; projects must be exported task by task")
    labels = [name.text or "" for name in meta.iterfind("labels/label/name")]
    if not labels:
        raise InputError(f"'{path}': the task has no labels")
    step = 1
    filter_ = meta.findtext("frame_filter") or ""
    if filter_.strip():
        key, _, value = filter_.partition("=")
        number = value.strip()
        if key.strip() != "step" or not _is_count(number) or int(number) < 1:
            raise InputError(f"'{path}': frame_filter '{filter_}' is not step=NUMBER")
        step = int(number)
    size, start = meta.findtext("size"), meta.findtext("start_frame")
    for count in (size, start):
        if count is not None and not _is_count(count.strip()):
            raise InputError(f"'{path}': '{count}' is not a number of frames")
    return _Task(labels, None if size is None else int(size), int(start or 0), step)


def _is_count(text: str) -> bool:
    return text.isdecimal() and len(text) < _MOST_DIGITS


def _masks(
    track: ElementTree.Element, video: VideoBuilder, task: _Task, fill_boxes: bool, where: str
) -> Iterator[tuple[int, RLE | None]]:
    """Yields the masks of a track, with the index of their frame in the video."""
    shapes = _shapes(track, video.length, task, fill_boxes, where)
    places = sorted(shapes)
    for place, following in pairwise([*places, video.length]):
        shape = shapes[place]
        if shape.outside:
            continue
        mask = None
        for frame in range(place, following):
            at = f"{where}, frame {task.start + frame * task.step}"
            if shape.kind == "mask":
                mask = mask or _mask(shape.element, video.size, at)
            else:
                points = shape.points
                if frame > place and following in shapes:
                    share = (frame - place) / (following - place)
                    points = _between(shape, shapes[following], share, at)
                mask = _polygon(points, video.size, at)
            yield frame, mask


def _shapes(
    track: ElementTree.Element, length: int, task: _Task, fill_boxes: bool, where: str
) -> dict[int, _Shape]:
    """Returns the shapes of a track by frame index in the video."""
    shapes: dict[int, _Shape] = {}
    for element in track:
        at = f"{where}, frame {element.get('frame')}"
        if element.tag in _WITHOUT_AREA:
            raise InputError(f"{at}: a {element.tag} is not a mask: draw a polygon or a mask")
        if element.tag not in _SHAPES:
            continue
        if element.tag == "box" and not fill_boxes:
            raise InputError(f"{at}: a box is not a mask: draw a polygon or a mask, or set `fill_boxes`")
        place, rest = divmod(int(_number(element, "frame", at)) - task.start, task.step)
        if rest or not 0 <= place < length:
            raise InputError(f"{at}: the task has no such frame")
        if place in shapes:
            raise InputError(f"{at}: the track has two shapes in this frame")
        outside = element.get("outside", "0") == "1"
        shapes[place] = _Shape(element.tag, outside, _points(element, at), element)
    return shapes


def _number(element: ElementTree.Element, key: str, where: str) -> float:
    try:
        value = float(element.get(key, ""))
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise InputError(f"{where}: '{key}' of a {element.tag} is not a number")
    return value


def _points(element: ElementTree.Element, where: str) -> np.ndarray:
    if element.tag == "mask":
        return np.empty((0, 2))
    if element.get("rotation", "0") not in ("0", "0.0", "0.00"):
        raise InputError(f"{where}: rotated shapes are not supported")
    if element.tag == "box":
        left, top, right, bottom = (_number(element, key, where) for key in ("xtl", "ytl", "xbr", "ybr"))
        return np.asarray([(left, top), (right, top), (right, bottom), (left, bottom)])
    try:
        pairs = [tuple(map(float, pair.split(","))) for pair in element.get("points", "").split(";")]
        points = np.asarray(pairs)
    except ValueError:
        points = np.empty(0)
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise InputError(f"{where}: the points of a polygon must be x,y;x,y;...")
    return points


def _between(shape: _Shape, following: _Shape, share: float, where: str) -> np.ndarray:
    if following.points.shape != shape.points.shape:
        raise InputError(
            f"{where}: no shape, and the shapes before and after have different numbers of corners, so it "
            "cannot be interpolated: export all frames from CVAT"
        )
    return shape.points + share * (following.points - shape.points)


def _polygon(points: np.ndarray, size: tuple[int, int], where: str) -> RLE | None:
    try:
        return to_rle([points.flatten().tolist()], *size)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _mask(element: ElementTree.Element, size: tuple[int, int], where: str) -> RLE | None:
    """Reads CVAT's own RLE: row-major runs inside a window of the frame, background first."""
    left, top, width, height = (
        int(_number(element, key, where)) for key in ("left", "top", "width", "height")
    )
    inside = 0 <= left <= left + width <= size[1] and 0 <= top <= top + height <= size[0]
    if width < 1 or height < 1 or not inside:
        raise InputError(
            f"{where}: the mask's window of {width}x{height} pixels at {left}, {top} is not inside the frame "
            f"of {size[1]}x{size[0]}"
        )
    runs = [run.strip() for run in element.get("rle", "").split(",")]
    if not all(map(_is_count, runs)) or sum(map(int, runs)) != width * height:
        raise InputError(f"{where}: malformed RLE: the runs must cover {width} x {height} pixels")
    values = np.arange(len(runs)) % 2 == 1
    mask = np.zeros((1, *size), dtype=bool)
    window = np.repeat(values, [int(run) for run in runs]).reshape(height, width)
    mask[0, top : top + height, left : left + width] = window
    return encode_masks(mask)[0]


def write_cvat(videos: list[LabelledVideo], names: dict[int, str], output: Path) -> None:
    """Writes NAME.xml for every video, named after the folder of its frames, and a meta.json.

    CVAT cannot track masks, so each mask is a track of its own. The attribute "instance" has the id of the
    annotation or, for results, a number that is unique in the dataset. labels.json has the labels with this
    attribute, for "Raw" in CVAT's constructor of labels; CVAT drops attributes that a label does not have.

    Args:
        videos: the videos and their instances.
        names: category names by id.
        output: a new folder.

    Raises:
        InputError: if the folder exists or cannot be written.
    """
    with new_folder(output) as folder:
        for labelled in videos:
            root = ElementTree.Element("annotations")
            ElementTree.SubElement(root, "version").text = "1.1"
            _write_task(ElementTree.SubElement(root, "meta"), labelled, names)
            count = 0
            for instance in labelled.instances:
                label = {"label": names[instance.category]}
                for frame, mask in enumerate(instance.masks):
                    if mask is not None:
                        source = "manual" if instance.score is None else "auto"
                        track = {"id": str(count), "source": source} | label
                        count += 1
                        element = ElementTree.SubElement(root, "track", track)
                        _write_mask(element, frame, mask, instance.id, frame + 1 == labelled.video.length)
            ElementTree.indent(root)
            path = folder / f"{labelled.folder}.xml"
            path.parent.mkdir(parents=True, exist_ok=True)
            ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)
        attribute = {"name": _INSTANCE, "mutable": False, "input_type": "text", "default_value": ""}
        labels = [
            {"name": name, "type": "mask", "attributes": [attribute | {"values": [""]}]}
            for name in names.values()
        ]
        write_json(folder / _LABELS, labels)
        write_meta(folder, names, ((v.folder, v, [i.id for i in v.instances]) for v in videos))


def _write_task(meta: ElementTree.Element, labelled: LabelledVideo, names: dict[int, str]) -> None:
    length = labelled.video.length
    task = ElementTree.SubElement(meta, "task")
    values = {"name": labelled.folder, "size": length, "mode": "annotation", "start_frame": 0}
    for key, value in (values | {"stop_frame": length - 1, "frame_filter": ""}).items():
        ElementTree.SubElement(task, key).text = str(value)
    labels = ElementTree.SubElement(task, "labels")
    for name in names.values():
        label = ElementTree.SubElement(labels, "label")
        ElementTree.SubElement(label, "name").text = name
        ElementTree.SubElement(label, "type").text = "mask"
        attribute = ElementTree.SubElement(ElementTree.SubElement(label, "attributes"), "attribute")
        ElementTree.SubElement(attribute, "name").text = _INSTANCE
        ElementTree.SubElement(attribute, "mutable").text = "False"
        ElementTree.SubElement(attribute, "input_type").text = "text"


def _write_mask(track: ElementTree.Element, frame: int, mask: RLE, instance: int, last: bool) -> None:
    """Adds a mask to a track, and the end of the track in the next frame, as CVAT does."""
    pixels = decode_mask(mask).astype(bool)
    rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    window = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    values = window.flatten()
    starts = np.flatnonzero(np.concatenate(([True], values[1:] != values[:-1])))
    runs = ([0] if values[0] else []) + np.diff(starts, append=len(values)).tolist()
    shape = {
        "keyframe": "1",
        "occluded": "0",
        "rle": ", ".join(map(str, runs)),
        "left": str(columns[0]),
        "top": str(rows[0]),
        "width": str(window.shape[1]),
        "height": str(window.shape[0]),
        "z_order": "0",
    }
    for number, outside in ((frame, "0"), (frame + 1, "1"))[: 1 if last else 2]:
        element = ElementTree.SubElement(track, "mask", {"frame": str(number), "outside": outside} | shape)
        ElementTree.SubElement(element, "attribute", name=_INSTANCE).text = str(instance)
