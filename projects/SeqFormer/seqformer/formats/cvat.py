"""CVAT for video 1.1: an XML file a task, with a track for every object."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from seqformer.errors import InputError
from seqformer.formats.builder import DatasetBuilder, VideoBuilder
from seqformer.formats.frames import list_pictures
from seqformer.formats.rle import encode_masks, to_rle
from seqformer.structures import RLE

__all__ = ["read_cvat"]

_SHAPES = {"polygon", "mask", "box"}
_WITHOUT_AREA = {"polyline", "points", "skeleton", "cuboid", "ellipse", "tag"}


@dataclass
class _Shape:
    """A track's shape in a frame.

    Attributes:
        kind: "polygon", "mask" or "box".
        outside: the object is not in the frame.
        points: (N, 2) xy in pixels, of polygons, and of boxes their four corners.
        element: what a mask is read from.
    """

    kind: str
    outside: bool
    points: np.ndarray | None
    element: ElementTree.Element


@dataclass
class _Task:
    """What is known of a task: its labels, and which frames of the source it has.

    Attributes:
        size: frames; None if the file does not say.
        start, step: of the numbers that tracks count frames by.
    """

    labels: list[str]
    size: int | None
    start: int
    step: int


def read_cvat(xml_files: list[Path], frames: Path, fill_boxes: bool = False) -> dict[str, Any]:
    """YouTube-VIS JSON from CVAT's XML.

    Polygons and masks become masks. Objects that are "outside" have none, "occluded" ones keep theirs. CVAT
    exports a shape for every frame. Where frames are left out between two shapes of a track, polygons and
    boxes are interpolated corner by corner and masks stay as they were; after its last shape an object stays
    until the video's end, unless that shape is outside.

    Args:
        xml_files: an export a task. The names of the labels are the categories.
        frames: folder of the frames, or, with several tasks, of folders named as the XML files. The frames in
            the order of their names are those of the task.
        fill_boxes: boxes become filled boxes; otherwise they are refused, since they are no masks.

    Raises:
        InputError: names file, track and frame if something is missing, inconsistent or not supported.
    """
    roots = [(path, _parse(path)) for path in xml_files]
    tasks = [_task(path, root) for path, root in roots]
    labels = list(dict.fromkeys(label for task in tasks for label in task.labels))
    builder = DatasetBuilder(frames, dict(enumerate(labels, start=1)))
    for (path, root), task in zip(roots, tasks, strict=True):
        folder = frames / path.stem if len(xml_files) > 1 else frames
        pictures = list(list_pictures(folder).values())
        if not pictures:
            raise InputError(f"'{folder}': no frames of '{path}'")
        if task.size is not None and task.size != len(pictures):
            raise InputError(f"'{path}' has {task.size} frames, '{folder}' {len(pictures)}")
        video = builder.add_video(pictures)
        for track in root.iter("track"):
            where = f"{path}: track {track.get('id')}"
            label = track.get("label")
            if label not in task.labels:
                raise InputError(f"{where}: there is no label '{label}' in the task")
            _add_track(video, track, label, task, fill_boxes, where)
    return builder.to_json()


def _parse(path: Path) -> ElementTree.Element:
    try:
        root = ElementTree.parse(path).getroot()
    except FileNotFoundError:
        raise InputError(f"no file '{path}'") from None
    except OSError as error:
        raise InputError(f"cannot read '{path}': {error.strerror}") from error
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(f"'{path}' is not XML: {error}") from error
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
        if key.strip() != "step" or not value.strip().isdecimal() or int(value) < 1:
            raise InputError(f"'{path}': frame_filter '{filter_}' is not step=NUMBER")
        step = int(value)
    size, start = (meta.findtext(key) for key in ("size", "start_frame"))
    for value in (size, start):
        if value is not None and not value.strip().isdecimal():
            raise InputError(f"'{path}': '{value}' is no number of frames")
    return _Task(labels, None if size is None else int(size), int(start or 0), step)


def _add_track(
    video: VideoBuilder, track: ElementTree.Element, label: str, task: _Task, fill_boxes: bool, where: str
) -> None:
    shapes = _shapes(track, len(video.names), task, fill_boxes, where)
    places = sorted(shapes)
    for place, following in zip(places, [*places[1:], len(video.names)], strict=True):
        shape = shapes[place]
        if shape.outside:
            continue
        mask = None
        for frame in range(place, following):
            at = f"{where}, frame {task.start + frame * task.step}"
            if shape.kind == "mask":
                mask = mask or _mask(shape.element, video, at)
            else:
                points = shape.points
                if frame > place and following in shapes:
                    share = (frame - place) / (following - place)
                    points = _between(shape, shapes[following], share, at)
                mask = _polygon(points, video, at)
            if mask is not None:
                video.add(frame, id(track), label, mask)


def _shapes(
    track: ElementTree.Element, length: int, task: _Task, fill_boxes: bool, where: str
) -> dict[int, _Shape]:
    """A track's shapes by the place of their frame in the video."""
    shapes: dict[int, _Shape] = {}
    for element in track:
        at = f"{where}, frame {element.get('frame')}"
        if element.tag in _WITHOUT_AREA:
            raise InputError(f"{at}: a {element.tag} is no mask; draw a polygon or a mask")
        if element.tag not in _SHAPES:
            continue
        if element.tag == "box" and not fill_boxes:
            raise InputError(f"{at}: a box is no mask; draw a polygon or a mask, or use --boxes fill")
        place, rest = divmod(int(_number(element, "frame", at)) - task.start, task.step)
        if rest or not 0 <= place < length:
            raise InputError(f"{at}: the task has no such frame")
        if place in shapes:
            raise InputError(f"{at}: the track has two shapes there")
        outside = element.get("outside", "0") == "1"
        shapes[place] = _Shape(element.tag, outside, _points(element, at), element)
    return shapes


def _number(element: ElementTree.Element, key: str, where: str) -> float:
    try:
        value = float(element.get(key, ""))
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise InputError(f"{where}: '{key}' of a {element.tag} is no number")
    return value


def _points(element: ElementTree.Element, where: str) -> np.ndarray | None:
    if element.tag == "mask":
        return None
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
    if element.get("rotation", "0") not in ("0", "0.0", "0.00"):
        raise InputError(f"{where}: rotated shapes are not supported")
    return points


def _between(shape: _Shape, following: _Shape, share: float, where: str) -> np.ndarray:
    if following.points is None or following.points.shape != shape.points.shape:
        raise InputError(
            f"{where}: no shape, and those before and after have different corners, so that nothing can be "
            "interpolated: export all frames from CVAT"
        )
    return shape.points + share * (following.points - shape.points)


def _polygon(points: np.ndarray, video: VideoBuilder, where: str) -> RLE | None:
    try:
        return to_rle([points.flatten().tolist()], video.height, video.width)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _mask(element: ElementTree.Element, video: VideoBuilder, where: str) -> RLE | None:
    """CVAT's own RLE: runs along rows, background first, inside a window of the frame."""
    left, top, width, height = (
        int(_number(element, key, where)) for key in ("left", "top", "width", "height")
    )
    inside = 0 <= left <= left + width <= video.width and 0 <= top <= top + height <= video.height
    if width < 1 or height < 1 or not inside:
        raise InputError(
            f"{where}: the mask's window of {width}x{height} pixels at {left}, {top} is not inside the frame "
            f"of {video.width}x{video.height}"
        )
    runs = [run.strip() for run in element.get("rle", "").split(",")]
    if not all(run.isdecimal() for run in runs) or sum(map(int, runs)) != width * height:
        raise InputError(f"{where}: malformed RLE: the runs must cover {width} x {height} pixels")
    values = np.arange(len(runs)) % 2 == 1
    mask = np.zeros((1, video.height, video.width), dtype=bool)
    window = np.repeat(values, [int(run) for run in runs]).reshape(height, width)
    mask[0, top : top + height, left : left + width] = window
    return encode_masks(mask)[0]
