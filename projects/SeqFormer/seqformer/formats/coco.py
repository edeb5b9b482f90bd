"""COCO: reads annotated images for training, and writes per-frame results for annotation tools."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pycocotools import mask as mask_api

from seqformer.errors import InputError
from seqformer.formats.checks import as_integer, is_integer, is_number, objects, quoted, refuse
from seqformer.formats.files import read_json, write_json
from seqformer.formats.labelled import LabelledVideo
from seqformer.formats.rle import SHORTEST_POLYGON, to_rle
from seqformer.formats.ytvis import category_entries
from seqformer.structures import RLE

__all__ = ["CocoImage", "CocoInstance", "read_coco", "write_coco"]


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
        where = f"{json_file}: image {entry.get('id', '(without id)')}"
        id_, height, width = (as_integer(entry.get(key)) for key in ("id", "height", "width"))
        for key, value in (("id", id_), ("height", height), ("width", width)):
            if not is_integer(value) or (key != "id" and value < 1):
                raise InputError(f"{where}: '{key}' must be a positive integer, not {quoted(value)}")
        if not isinstance(entry.get("file_name"), str):
            raise InputError(f"{where}: no 'file_name'")
        images[id_] = CocoImage(id_, entry["file_name"], height, width)
    for entry in objects(data, "annotations", str(json_file), refuse, "COCO"):
        image_id, category = (as_integer(entry.get(key)) for key in ("image_id", "category_id"))
        image = images.get(image_id) if is_integer(image_id) else None
        where = f"{json_file}: image {image_id}, annotation {entry.get('id')}"
        for key, value in (("image_id", image_id), ("category_id", category)):
            if not is_integer(value):
                raise InputError(f"{where}: '{key}' must be an integer, not {quoted(value)}")
        if image is None:
            raise InputError(f"{where}: there is no image with that id")
        if category in categories:
            segmentation = _segmentation(entry.get("segmentation"), image, where)
            box = entry.get("bbox")
            if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
                raise InputError(f"{where}: 'bbox' must be x, y, width and height in pixels, not {box!r}")
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


def write_coco(videos: list[LabelledVideo], names: dict[int, str], path: Path) -> None:
    """Writes a COCO annotation file whose images are the frames of all videos.

    Each annotation also has a score and a track_id, which is unique in the file and the same in all frames
    of a tracklet. Each image has a video_id and a frame_id that starts at 0. Instances may overlap.

    Args:
        videos: the videos and their results.
        names: category names by id.
        path: the file to write.

    Raises:
        InputError: if the file cannot be written.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    track_id = 0
    for labelled in videos:
        video = labelled.video
        first = len(images) + 1
        for frame, name in enumerate(video.names):
            size = {"height": video.height, "width": video.width}
            place = {"video_id": video.id, "frame_id": frame}
            images.append({"id": first + frame, "file_name": name} | size | place)
        for instance in labelled.instances:
            track_id += 1
            for frame, mask in enumerate(instance.masks):
                if mask is None:
                    continue
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": first + frame,
                        "category_id": instance.category,
                        "track_id": track_id,
                        "score": instance.score,
                        "iscrowd": 0,
                        "segmentation": mask,
                        "bbox": mask_api.toBbox(mask).tolist(),
                        "area": int(mask_api.area(mask)),
                    }
                )
    content = {"images": images, "categories": category_entries(names), "annotations": annotations}
    write_json(path, content)
