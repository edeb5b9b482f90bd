"""CVAT for video 1.1: one XML file per task, with a track for every object."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from seqformer.errors import InputError
from seqformer.formats.builder import DatasetBuilder, VideoBuilder
from seqformer.formats.frames import list_pictures
from seqformer.formats.rle import encode_masks, to_rle
from seqformer.formats.ytvis import Dataset
from seqformer.structures import RLE

__all__ = ["read_cvat"]

_SHAPES = {"polygon", "mask", "box"}
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


def read_cvat(xml_files: list[Path], frames: Path, fill_boxes: bool = False) -> Dataset:
    """Reads a dataset from CVAT's XML.

    Polygons and masks become masks. "outside" objects have no mask; "occluded" objects keep theirs. CVAT
    exports a shape for every frame. If a track has gaps, polygons and boxes are interpolated corner by
    corner, and masks are repeated. The last shape is repeated until the end of the video, unless it is
    outside.

    Args:
        xml_files: one export per task. Label names become categories.
        frames: the folder of frames; with several tasks, it has one subfolder per task, named like the XML
            file. Frames sorted by name must correspond to the frames of the task.
        fill_boxes: turn boxes into filled rectangles. Otherwise a box raises an error.

    Raises:
        InputError: if something is missing, inconsistent or not supported; the message names file, track and
            frame.
    """
    roots = [(path, _parse(path)) for path in xml_files]
    tasks = [_task(path, root) for path, root in roots]
    labels = dict.fromkeys(label for task in tasks for label in task.labels)
    builder = DatasetBuilder(frames, dict(enumerate(labels, start=1)))
    categories = {label: id_ for id_, label in enumerate(labels, start=1)}
    for (path, root), task in zip(roots, tasks, strict=True):
        folder = frames / path.stem if len(xml_files) > 1 else frames
        pictures = list(list_pictures(folder).values())
        if not pictures:
            raise InputError(f"'{folder}': no frames for '{path}'")
        if task.size is not None and task.size != len(pictures):
            raise InputError(f"'{path}' has {task.size} frames, but '{folder}' has {len(pictures)}")
        video = builder.add_video(pictures)
        for track in root.iter("track"):
            where = f"{path}: track {track.get('id')}"
            label = track.get("label", "")
            if label not in task.labels:
                raise InputError(f"{where}: there is no label '{label}' in the task")
            _add_track(video, track, categories[label], task, fill_boxes, where)
    return builder.finish()


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
    size, start = meta.findtext("size"), meta.findtext("start_frame")
    for number in (size, start):
        if number is not None and not number.strip().isdecimal():
            raise InputError(f"'{path}': '{number}' is not a number of frames")
    return _Task(labels, None if size is None else int(size), int(start or 0), step)


def _add_track(
    video: VideoBuilder, track: ElementTree.Element, category: int, task: _Task, fill_boxes: bool, where: str
) -> None:
    shapes = _shapes(track, video.length, task, fill_boxes, where)
    places = sorted(shapes)
    for place, following in zip(places, [*places[1:], video.length], strict=True):
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
            video.add(frame, id(track), category, mask)


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
    if not all(run.isdecimal() for run in runs) or sum(map(int, runs)) != width * height:
        raise InputError(f"{where}: malformed RLE: the runs must cover {width} x {height} pixels")
    values = np.arange(len(runs)) % 2 == 1
    mask = np.zeros((1, *size), dtype=bool)
    window = np.repeat(values, [int(run) for run in runs]).reshape(height, width)
    mask[0, top : top + height, left : left + width] = window
    return encode_masks(mask)[0]
