"""COCO: annotated images for training, and files whose images are the frames of videos."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pycocotools import mask as mask_api

from seqformer.errors import InputError
from seqformer.formats.builder import DatasetBuilder, ListedFrame, VideoBuilder
from seqformer.formats.checks import (
    LARGEST_FRAME,
    as_integer,
    is_integer,
    is_number,
    named,
    objects,
    quoted,
    refuse,
)
from seqformer.formats.files import read_json, write_json
from seqformer.formats.labelled import LabelledVideo
from seqformer.formats.rle import SHORTEST_POLYGON, to_rle
from seqformer.formats.ytvis import Dataset, category_entries, parse_categories
from seqformer.structures import RLE

__all__ = ["CocoImage", "CocoInstance", "read_coco", "read_coco_video", "write_coco"]


@dataclass
class CocoInstance:
    """An instance in an image.

    Attributes:
        category: COCO's category id.
        box: xywh in pixels.
        segmentation: polygons, each a list of x, y, ... in pixels, or a compressed RLE.
    """

    id: int | None
    category: int
    crowd: bool
    box: list[float]
    segmentation: list[list[float]] | RLE


@dataclass
class CocoImage:
    """An image and its instances.

    Attributes:
        name: file name.
        height, width: pixels.
    """

    id: int
    name: str
    height: int
    width: int
    instances: list[CocoInstance] = field(default_factory=list)


def read_coco(json_file: str | Path, categories: Container[int]) -> list[CocoImage]:
    """Reads COCO instances.

    Args:
        json_file: instances_train2017.json or the like.
        categories: ids of the categories to read.

    Returns:
        The images in file order, with their instances of these categories. Instances without a polygon of
        at least three corners are skipped.

    Raises:
        InputError: if something is missing or malformed; the message names file, image and annotation.
    """
    data = read_json(json_file)
    images = {}
    for entry in objects(data, "images", str(json_file), refuse, "COCO"):
        where = f"{json_file}: image {named(entry['id']) if 'id' in entry else '(without id)'}"
        id_, height, width = (as_integer(entry.get(key)) for key in ("id", "height", "width"))
        for key, value in (("id", id_), ("height", height), ("width", width)):
            if not is_integer(value) or (key != "id" and value < 1):
                raise InputError(f"{where}: '{key}' must be a positive integer, not {quoted(value)}")
        if height * width > LARGEST_FRAME:
            raise InputError(
                f"{where}: {quoted(width)}x{quoted(height)} pixels are too large: at most {LARGEST_FRAME} "
                "can be used"
            )
        if not isinstance(entry.get("file_name"), str):
            raise InputError(f"{where}: no 'file_name'")
        images[id_] = CocoImage(id_, entry["file_name"], height, width)
    for entry in objects(data, "annotations", str(json_file), refuse, "COCO"):
        image_id, category = (as_integer(entry.get(key)) for key in ("image_id", "category_id"))
        image = images.get(image_id) if is_integer(image_id) else None
        where = f"{json_file}: image {named(image_id)}, annotation {named(entry.get('id'))}"
        for key, value in (("image_id", image_id), ("category_id", category)):
            if not is_integer(value):
                raise InputError(f"{where}: '{key}' must be an integer, not {quoted(value)}")
        if image is None:
            raise InputError(f"{where}: there is no image with that id")
        if category in categories:
            segmentation = _segmentation(entry.get("segmentation"), image, where)
            box = entry.get("bbox")
            if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
                raise InputError(
                    f"{where}: 'bbox' must be x, y, width and height in pixels, not {quoted(box)}"
                )
            if segmentation:
                crowd = bool(entry.get("iscrowd"))
                instance = CocoInstance(entry.get("id"), category, crowd, box, segmentation)
                image.instances.append(instance)
    return list(images.values())


def _segmentation(segmentation: Any, image: CocoImage, where: str) -> list[list[float]] | RLE | None:
    if not isinstance(segmentation, list):
        try:
            return to_rle(segmentation, image.height, image.width)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
    for polygon in segmentation:
        if not isinstance(polygon, list) or not all(map(is_number, polygon)):
            raise InputError(f"{where}: malformed polygon: it must be a list of x, y, ...")
    # Polygons are rasterised when an image is used: doing it here for all of COCO would take minutes.
    return [p for p in segmentation if len(p) >= SHORTEST_POLYGON and len(p) % 2 == 0]


def read_coco_video(json_file: Path, frames: Path) -> Dataset:
    """Reads a dataset from a COCO file whose images are frames, as :func:`write_coco` writes it.

    An image belongs to the video ``video_id``, or, without one, to that of its folder. Frames are in the
    order of ``frame_id`` or, if an image of the video has none, of their names. An annotation belongs to the
    instance ``track_id`` or ``instance_id``, which may also be in its ``attributes``; without one, it is an
    instance of one frame. Track ids become the ids of annotations if they are unique in the file.

    Args:
        json_file: the COCO file.
        frames: the folder that ``file_name`` is relative to.

    Raises:
        InputError: if something is missing or inconsistent; the message names file, image and annotation.
    """
    data = read_json(json_file)
    source = str(json_file)
    if not isinstance(data, dict):
        raise InputError(f"{source}: not an object with 'images' and 'categories'")
    images: dict[int, ListedFrame] = {}
    for entry in objects(data, "images", source, refuse, "COCO"):
        name = entry.get("file_name")
        id_, video, frame = (as_integer(entry.get(key)) for key in ("id", "video_id", "frame_id"))
        where = f"{source}: image {named(id_)}"
        if not is_integer(id_) or id_ in images:
            raise InputError(f"{where}: ids must be integers, each used once")
        if not isinstance(name, str):
            raise InputError(f"{where}: no 'file_name'")
        for key, value in (("video_id", video), ("frame_id", frame)):
            if value is not None and not is_integer(value):
                raise InputError(f"{where}: '{key}' must be an integer, not {quoted(value)}")
        images[id_] = ListedFrame(name, video, frame)
    videos = objects(data, "videos", source, refuse, "COCO") if "videos" in data else []
    used = {image.video for image in images.values()}
    first = [id_ for video in videos if is_integer(id_ := as_integer(video.get("id"))) and id_ in used]
    builder = DatasetBuilder(frames, parse_categories(data, source))
    places = dict(zip(images, builder.add_listed(list(images.values()), source, first), strict=True))
    for number, entry in enumerate(objects(data, "annotations", source, refuse, "COCO")):
        image = as_integer(entry.get("image_id"))
        where = f"{source}: image {named(image)}, annotation {named(entry.get('id'))}"
        if not is_integer(image) or image not in places:
            raise InputError(f"{where}: there is no image with that id")
        _add_annotation(*places[image], entry, builder.names, number, where)
    return builder.finish()


def _add_annotation(
    video: VideoBuilder, frame: int, entry: dict[str, Any], names: dict[int, str], number: int, where: str
) -> None:
    attributes = entry.get("attributes")
    known = (attributes if isinstance(attributes, dict) else {}) | entry
    track = next((known[key] for key in ("track_id", "instance_id") if known.get(key) is not None), None)
    track, category, score = as_integer(track), as_integer(entry.get("category_id")), entry.get("score")
    if not is_integer(category) or category not in names:
        raise InputError(f"{where}: category_id {quoted(category)} is not one of the categories")
    if track is not None and not isinstance(track, int | str):
        raise InputError(f"{where}: 'track_id' must be an integer, not {quoted(track)}")
    if score is not None and not is_number(score):
        raise InputError(f"{where}: 'score' must be a number, not {quoted(score)}")
    if not entry.get("segmentation"):
        raise InputError(f"{where}: no 'segmentation'; a box is not a mask")
    identity = f"annotation {number}" if track is None else f"track {track}"
    try:
        mask = to_rle(entry["segmentation"], *video.size)
        id_ = track if is_integer(track) else None
        video.add(frame, identity, category, mask, bool(entry.get("iscrowd")), id_=id_, score=score)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def write_coco(videos: list[LabelledVideo], names: dict[int, str], path: Path) -> None:
    """Writes a COCO annotation file whose images are the frames of all videos.

    Each annotation also has a track_id, unique in the file and the same in all frames of a tracklet, and a
    score if it is a result. Each image has a video_id and a frame_id that starts at 0. Instances may overlap.
    Tools that read COCO images, such as FiftyOne, ignore these keys or keep them as attributes.

    Args:
        videos: the videos and their instances.
        names: category names by id.
        path: the file to write.

    Raises:
        InputError: if the file cannot be written.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    sources = []
    for labelled in videos:
        video = labelled.video
        first = len(images) + 1
        size = {"height": video.height, "width": video.width}
        sources.append({"id": video.id, "name": labelled.folder, "length": video.length} | size)
        for frame, name in enumerate(video.names):
            place = {"video_id": video.id, "frame_id": frame}
            images.append({"id": first + frame, "file_name": name} | size | place)
        for instance in labelled.instances:
            score = {} if instance.score is None else {"score": instance.score}
            for frame, mask in enumerate(instance.masks):
                if mask is None:
                    continue
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": first + frame,
                        "category_id": instance.category,
                        "video_id": video.id,
                        "track_id": instance.id,
                        "iscrowd": int(instance.crowd),
                        "segmentation": mask,
                        "bbox": mask_api.toBbox(mask).tolist(),
                        "area": int(mask_api.area(mask)),
                    }
                    | score
                )
    content = {"videos": sources, "images": images, "categories": category_entries(names)}
    write_json(path, content | {"annotations": annotations})
