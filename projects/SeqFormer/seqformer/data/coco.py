"""COCO's images under the categories of a video dataset, to train on as pseudo-videos."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode

from seqformer.data.categories import CATEGORIES, COCO_TO
from seqformer.errors import InputError
from seqformer.formats.files import read_json
from seqformer.formats.rle import to_rle

__all__ = ["load_coco_as_ytvis"]

_SHORTEST_POLYGON = 6  # numbers; Detectron2 leaves out shorter ones, too


def load_coco_as_ytvis(
    json_file: str | Path, image_root: str | Path, target: str, dataset_name: str | None = None
) -> list[dict[str, Any]]:
    """Reads COCO instances whose category a video dataset has, too.

    Args:
        json_file: instances_train2017.json or the like.
        image_root: the folder of its images.
        target: whose categories to use: "ytvis_2019", "ytvis_2021" or "ovis".
        dataset_name: where to set "thing_classes", "thing_colors" and "thing_dataset_id_to_contiguous_id"
            (of the target's ids) in Detectron2's MetadataCatalog.

    Returns:
        a dict for every image with such an instance, as Detectron2's COCO loader gives them: file_name,
        height, width (pixels), image_id and annotations, dicts with id, category_id (the target's, 0-based
        and contiguous, as :func:`seqformer.data.load_ytvis_json` counts them), iscrowd, bbox (xywh, pixels),
        bbox_mode and segmentation (polygons, or a compressed RLE). Instances of other categories, and those
        without a polygon of three corners, are left out.

    Raises:
        InputError: names file, image and annotation if something is missing or malformed, or says that there
            is no such target.
    """
    if target not in CATEGORIES:
        raise InputError(f"no categories of '{target}'; known are {', '.join(CATEGORIES)}")
    contiguous = {category.id: index for index, category in enumerate(CATEGORIES[target])}
    if dataset_name is not None:
        MetadataCatalog.get(dataset_name).set(
            thing_classes=[category.name for category in CATEGORIES[target]],
            thing_colors=[list(category.color) for category in CATEGORIES[target]],
            thing_dataset_id_to_contiguous_id=contiguous,
        )
    data = read_json(json_file)
    images = {image["id"]: image for image in _images(data, json_file)}
    try:
        present = set(os.listdir(image_root))
    except OSError as error:
        raise InputError(f"cannot read the folder '{image_root}': {error.strerror}") from error
    records: dict[int, dict[str, Any]] = {}
    for entry in _objects(data, "annotations", json_file):
        category = COCO_TO[target].get(entry.get("category_id"))
        image = images.get(entry.get("image_id"))
        where = f"{json_file}: image {entry.get('image_id')}, annotation {entry.get('id')}"
        if image is None:
            raise InputError(f"{where}: there is no image with that id")
        if category is None:
            continue
        instance = _instance(entry, image, where)
        if instance is None:
            continue
        if image["id"] not in records:
            if image["file_name"] not in present:
                raise InputError(f"{where}: no file '{Path(image_root, image['file_name'])}'")
            records[image["id"]] = {
                "file_name": str(Path(image_root, image["file_name"])),
                "height": image["height"],
                "width": image["width"],
                "image_id": image["id"],
                "annotations": [],
            }
        records[image["id"]]["annotations"].append(instance | {"category_id": contiguous[category]})
    return [records[id_] for id_ in images if id_ in records]


def _objects(data: Any, key: str, json_file: str | Path) -> list[dict[str, Any]]:
    entries = data.get(key) if isinstance(data, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{json_file}: '{key}' must be a list of objects; is it COCO format?")
    return entries


def _images(data: Any, json_file: str | Path) -> list[dict[str, Any]]:
    images = _objects(data, "images", json_file)
    for image in images:
        where = f"{json_file}: image {image.get('id', '(without id)')}"
        for key in ("id", "height", "width"):
            if not isinstance(image.get(key), int) or (key != "id" and image[key] < 1):
                raise InputError(f"{where}: '{key}' must be a positive integer")
        if not isinstance(image.get("file_name"), str):
            raise InputError(f"{where}: no 'file_name'")
    return images


def _instance(entry: dict[str, Any], image: dict[str, Any], where: str) -> dict[str, Any] | None:
    """A Detectron2 annotation without category; None if it has no mask."""
    box, segmentation = entry.get("bbox"), entry.get("segmentation")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        raise InputError(f"{where}: 'bbox' must be x, y, width and height in pixels, not {box!r}")
    if isinstance(segmentation, list):
        for polygon in segmentation:
            if not isinstance(polygon, list) or not all(map(_is_number, polygon)):
                raise InputError(f"{where}: malformed polygon: it must be a list of x, y")
        # Masks are drawn when an image is used: drawing all of COCO's here would take minutes.
        mask: Any = [p for p in segmentation if len(p) >= _SHORTEST_POLYGON and len(p) % 2 == 0]
    else:
        try:
            mask = to_rle(segmentation, image["height"], image["width"])
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
    if not mask:
        return None
    return {
        "id": entry.get("id"),
        "iscrowd": int(bool(entry.get("iscrowd"))),
        "bbox": box,
        "bbox_mode": BoxMode.XYWH_ABS,
        "segmentation": mask,
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
