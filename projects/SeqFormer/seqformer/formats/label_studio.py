"""Label Studio: frames of videos as image tasks, with masks in the run-length encoding of its brush."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.etree import ElementTree

import numpy as np

from seqformer.errors import InputError
from seqformer.formats.builder import DatasetBuilder, ListedFrame, VideoBuilder
from seqformer.formats.checks import as_integer, is_integer, is_number, quoted, refuse
from seqformer.formats.files import new_folder, read_json, read_xml, write_json
from seqformer.formats.labelled import LabelledVideo
from seqformer.formats.rle import decode_mask, encode_masks, to_rle
from seqformer.formats.ytvis import Dataset
from seqformer.structures import RLE

__all__ = ["CONFIG", "LOCAL_FILES", "decode_brush", "encode_brush", "read_label_studio", "write_label_studio"]

CONFIG = "config.xml"
_TASKS = "tasks.json"
LOCAL_FILES = "/data/local-files/?d="  # where Label Studio serves files of its own disk
_CHANNELS = 4  # of the pictures that are encoded; the last one is the mask
_WORD = 8  # bits of a value
_LENGTHS = (3, 4, 8, 16)  # bits of a run's length, of which the shortest is chosen
_HEADER = 32 + 5 + 4 * len(_LENGTHS)  # bits: number of values, bits of a value, bits of lengths
_INSTANCE = re.compile(r"instance (\d{1,18})")
_CROWD = "crowd"


def encode_brush(mask: np.ndarray) -> list[int]:
    """Encodes a mask (H, W) bool as Label Studio's brush does; returns the bytes as integers.

    The pixels are those of an RGBA picture, row by row, all four channels 0 or 255. After a header, runs of
    equal values follow: a bit that is 1, which of four sizes the length has, the length minus 1, the value.

    Source: https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack, which Label Studio uses.
    """
    pixels = mask.flatten()
    starts = np.flatnonzero(np.concatenate(([True], pixels[1:] != pixels[:-1])))
    lengths = _CHANNELS * np.diff(starts, append=len(pixels))
    bits = [f"{_CHANNELS * len(pixels):032b}{_WORD - 1:05b}", *(f"{size - 1:04b}" for size in _LENGTHS)]
    longest = 1 << _LENGTHS[-1]
    for length, value in zip(lengths.tolist(), pixels[starts].tolist(), strict=True):
        while length:
            run = min(length, longest)
            kind = next(kind for kind, size in enumerate(_LENGTHS) if run <= 1 << size)
            bits.append(f"1{kind:02b}{run - 1:0{_LENGTHS[kind]}b}{255 * value:08b}")
            length -= run
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def decode_brush(rle: Any, height: int, width: int) -> np.ndarray:
    """Decodes a mask of Label Studio's brush. Pixels that are not wholly transparent belong to the mask.

    Args:
        rle: the bytes as a list of integers.
        height, width: size of the frame, pixels. It is compared with that of the mask before it is decoded.

    Returns:
        (H, W) bool.

    Raises:
        InputError: if the encoding is malformed or has a different size.
    """
    try:
        data = bytes(rle) if isinstance(rle, list) else b""
    except (TypeError, ValueError):
        data = b""
    total = 8 * len(data)
    if total < _HEADER:
        raise InputError("malformed brush RLE: 'rle' must be a list of bytes")

    def read(place: int, size: int) -> int:
        """Returns the number in ``size`` bits from bit ``place``."""
        end = place + size
        if end > total:
            raise InputError("malformed brush RLE: it ends early")
        number = int.from_bytes(data[place // 8 : (end + 7) // 8], "big")
        return number >> (-end % 8) & ((1 << size) - 1)

    count = read(0, 32)
    if count != _CHANNELS * height * width:
        raise InputError(f"the brush RLE has {count} values, but the frame has {height} x {width} pixels")
    if read(32, 5) + 1 != _WORD:
        raise InputError(f"malformed brush RLE: values of {read(32, 5) + 1} bits")
    lengths = [read(37 + 4 * kind, 4) + 1 for kind in range(len(_LENGTHS))]
    values = np.zeros(count, dtype=np.uint8)
    done, place = 0, _HEADER
    while done < count:
        size = lengths[read(place + 1, 2)]
        end = done + 1 + read(place + 3, size)
        if end > count:
            raise InputError("malformed brush RLE: it has more values than pixels")
        same = read(place, 1)
        place += 3 + size
        bits = _WORD if same else _WORD * (end - done)
        number = read(place, bits)
        values[done:end] = number if same else np.frombuffer(number.to_bytes(bits // 8, "big"), np.uint8)
        done, place = end, place + bits
    return values[_CHANNELS - 1 :: _CHANNELS].reshape(height, width) > 0


def read_label_studio(tasks_json: Path, frames: Path, config: Path | None = None) -> Dataset:
    """Reads a dataset from image tasks, as Label Studio exports them ("JSON", not "JSON-MIN").

    Regions of a brush or polygon are read from the last annotation of a task that is not cancelled, or from
    its last prediction if it has no annotation. A region belongs to the instance N of the video if its meta
    information has the text "instance N"; without one, it is an instance of one frame. "crowd" in the meta
    information makes a crowd. Regions without a mask, such as choices and relations, are ignored.

    Args:
        tasks_json: the export. ``file_name`` in the data of a task is the frame, otherwise the path of its
            ``image``. Frames belong to the video ``video_id`` and have the number ``frame_id``; without them,
            a video is a folder, and frames are in the order of their names.
        frames: the folder of frames.
        config: the labeling configuration (XML), whose labels are the categories. Their ids are in the
            attribute ``category``. Without it, ids follow the order of the labels' names.

    Raises:
        InputError: if something is missing, inconsistent or not supported; the message names file, task and
            region.
    """
    tasks = read_json(tasks_json)
    if not isinstance(tasks, list) or not all(
        isinstance(task, dict) and isinstance(task.get("data"), dict) for task in tasks
    ):
        refuse(f"{tasks_json}: not a list of tasks with 'data'; export them from Label Studio as JSON")
    listed = [_frame(task["data"], f"{tasks_json}: task {n}") for n, task in enumerate(tasks)]
    regions = [list(_regions(task, f"{tasks_json}: task {n}")) for n, task in enumerate(tasks)]
    if config is None:
        labels = sorted({label for found in regions for _, label, _ in found})
        names = dict(enumerate(labels, start=1))
    else:
        names = _read_config(config)
    builder = DatasetBuilder(frames, names)
    categories = {name: id_ for id_, name in names.items()}
    places = builder.add_listed(listed, str(tasks_json))
    for (video, frame), found in zip(places, regions, strict=True):
        for where, label, region in found:
            if label not in categories:
                raise InputError(f"{where}: there is no label '{label}' in '{config}'")
            try:
                _add_region(video, frame, region, categories[label], where)
            except InputError as error:
                raise InputError(f"{where}: {error}") from None
    return builder.finish()


def _frame(data: dict[str, Any], where: str) -> ListedFrame:
    name = data.get("file_name")
    video, frame = (as_integer(data.get(key)) for key in ("video_id", "frame_id"))
    if not isinstance(name, str):
        image = data.get("image")
        if not isinstance(image, str):
            raise InputError(f"{where}: 'data' has neither 'file_name' nor 'image'")
        try:
            url = urlsplit(image)
        except ValueError as error:
            raise InputError(f"{where}: malformed 'image': {error}") from None
        name = parse_qs(url.query).get("d", [unquote(url.path).lstrip("/")])[0]
    for key, value in (("video_id", video), ("frame_id", frame)):
        if value is not None and not is_integer(value):
            raise InputError(f"{where}: '{key}' must be an integer, not {quoted(value)}")
    return ListedFrame(name, video, frame)


def _regions(task: dict[str, Any], where: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yields place, label and result of the regions with masks."""
    for key in ("annotations", "predictions"):
        entries = task.get(key) or []
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise InputError(f"{where}: '{key}' must be a list of objects")
        valid = [entry for entry in entries if not entry.get("was_cancelled")]
        if valid:
            break
    else:
        return
    results = valid[-1].get("result")
    if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
        raise InputError(f"{where}: 'result' must be a list of objects")
    for number, result in enumerate(results):
        at, kind, value = f"{where}, region {number}", result.get("type"), result.get("value")
        if kind in ("rectanglelabels", "ellipselabels", "keypointlabels", "vectorlabels"):
            raise InputError(f"{at}: {kind} are not masks: use a brush or polygons")
        if kind not in ("brushlabels", "polygonlabels"):
            continue
        labels = value.get(kind) if isinstance(value, dict) else None
        if not isinstance(labels, list) or len(labels) != 1 or not isinstance(labels[0], str):
            raise InputError(f"{at}: a region needs exactly one label")
        yield at, labels[0], result


def _add_region(video: VideoBuilder, frame: int, region: dict[str, Any], category: int, where: str) -> None:
    height, width = video.size
    size = region.get("original_height", height), region.get("original_width", width)
    if size != video.size:
        raise InputError(
            f"the region is for {quoted(size[1])}x{quoted(size[0])} pixels, but the frame is {width}x{height}"
        )
    if region.get("image_rotation"):
        raise InputError("rotated images are not supported")
    value, score, meta = region["value"], region.get("score"), region.get("meta")
    if score is not None and not is_number(score):
        raise InputError(f"'score' must be a number, not {quoted(score)}")
    texts = meta.get("text") if isinstance(meta, dict) else None
    texts = [texts] if isinstance(texts, str) else texts or []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InputError("the 'text' of 'meta' must be a list of texts")
    found = next((match for text in texts if (match := _INSTANCE.fullmatch(text.strip()))), None)
    id_ = None if found is None else int(found[1])
    if region["type"] == "polygonlabels":
        mask = _polygon(value.get("points"), height, width)
    else:
        mask = encode_masks(decode_brush(value.get("rle"), height, width)[None])[0]
    identity = where if id_ is None else f"instance {id_}"
    video.add(frame, identity, category, mask, _CROWD in texts, id_=id_, score=score)


def _polygon(points: Any, height: int, width: int) -> RLE | None:
    """Returns the mask of a polygon, whose corners are in percent of the frame."""
    if not isinstance(points, list) or not all(
        isinstance(point, list) and len(point) == 2 and all(map(is_number, point)) for point in points
    ):
        raise InputError("'points' must be a list of [x, y] in percent")
    return to_rle([[n for x, y in points for n in (x * width / 100, y * height / 100)]], height, width)


def _read_config(path: Path) -> dict[int, str]:
    """Returns the labels of a labeling configuration by category id."""
    root = read_xml(path)
    labels: dict[str, int | None] = {}
    for element in (e for tag in ("BrushLabels", "PolygonLabels") for e in root.iter(tag)):
        for child in element.iter("Label"):
            text = child.get("category")
            if text is not None and not re.fullmatch(r"-?\d{1,18}", text):
                raise InputError(f"'{path}': the category '{text}' is not a number")
            labels[child.get("value", "")] = None if text is None else int(text)
    if not labels:
        raise InputError(f"'{path}': no BrushLabels or PolygonLabels with a Label")
    given = [id_ for id_ in labels.values() if id_ is not None]
    if len(set(given)) < len(given):
        raise InputError(f"'{path}': two labels have the same category")
    free = max([0, *given])
    names: dict[int, str] = {}
    for label, id_ in labels.items():
        if id_ is None:
            free = id_ = free + 1
        names[id_] = label
    return dict(sorted(names.items()))


def write_label_studio(
    videos: list[LabelledVideo], names: dict[int, str], output: Path, image_prefix: str = LOCAL_FILES
) -> None:
    """Writes tasks.json, with a task for every frame, and config.xml, the labeling configuration.

    Results become predictions, which annotators can correct; annotations stay annotations. The instance is in
    the meta information of each region, as "instance N", where annotators see and change it.

    Args:
        videos: the videos and their instances.
        names: category names by id.
        output: a new folder.
        image_prefix: the URL that the names of frames are added to.

    Raises:
        InputError: if the folder exists or cannot be written.
    """
    predicted = any(instance.score is not None for labelled in videos for instance in labelled.instances)
    tasks = []
    for labelled in videos:
        video = labelled.video
        for frame, name in enumerate(video.names):
            regions = []
            for instance in labelled.instances:
                mask = instance.masks[frame]
                if mask is None:
                    continue
                text = [f"instance {instance.id}"] + [_CROWD] * instance.crowd
                brush = {"format": "rle", "rle": encode_brush(decode_mask(mask).astype(bool))}
                region = {
                    "id": f"{instance.id}-{frame}",
                    "type": "brushlabels",
                    "from_name": "mask",
                    "to_name": "image",
                    "image_rotation": 0,
                    "original_width": video.width,
                    "original_height": video.height,
                    "value": brush | {"brushlabels": [names[instance.category]]},
                    "meta": {"text": text},
                }
                regions.append(region if instance.score is None else region | {"score": instance.score})
            data = {"image": image_prefix + quote(name), "file_name": name}
            tasks.append(
                {
                    "data": data | {"video_id": video.id, "frame_id": frame},
                    "predictions" if predicted else "annotations": [{"result": regions}],
                }
            )
    with new_folder(output) as folder:
        write_json(folder / _TASKS, tasks)
        (folder / CONFIG).write_bytes(_config(names))


def _config(names: dict[int, str]) -> bytes:
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image", zoom="true")
    labels = ElementTree.SubElement(view, "BrushLabels", name="mask", toName="image")
    for id_, name in names.items():
        ElementTree.SubElement(labels, "Label", value=name, category=str(id_))
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="utf-8") + b"\n"
