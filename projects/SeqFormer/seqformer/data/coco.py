"""COCO images with the categories of a video dataset, for training on pseudo-videos."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode

from seqformer.data.categories import CATEGORIES, COCO_TO
from seqformer.errors import InputError
from seqformer.formats.coco import read_coco

__all__ = ["load_coco_as_ytvis"]


def load_coco_as_ytvis(
    json_file: str | Path, image_root: str | Path, target: str, dataset_name: str | None = None
) -> list[dict[str, Any]]:
    """Reads the COCO instances whose category also exists in a video dataset.

    Args:
        json_file: annotations, such as instances_train2017.json.
        image_root: folder of the images.
        target: the dataset whose categories are used: "ytvis_2019", "ytvis_2021" or "ovis".
        dataset_name: entry of Detectron2's MetadataCatalog in which to set "thing_classes", "thing_colors"
            and "thing_dataset_id_to_contiguous_id" (for the target's ids).

    Returns:
        A dict for every image with such an instance, like those of Detectron2's COCO loader: file_name,
        height, width (pixels), image_id and annotations. These are dicts of id, category_id (the target's,
        0-based and contiguous, as in :func:`seqformer.data.load_ytvis_json`), iscrowd, bbox (xywh, pixels),
        bbox_mode and segmentation (polygons, or a compressed RLE). Instances of other categories, and those
        without a polygon of at least three corners, are dropped.

    Raises:
        InputError: if something is missing or malformed (the message names file, image and annotation), or
            the target is unknown.
    """
    if target not in CATEGORIES:
        raise InputError(f"no categories of '{target}'; available: {', '.join(CATEGORIES)}")
    contiguous = {category.id: index for index, category in enumerate(CATEGORIES[target])}
    if dataset_name is not None:
        MetadataCatalog.get(dataset_name).set(
            thing_classes=[category.name for category in CATEGORIES[target]],
            thing_colors=[list(category.color) for category in CATEGORIES[target]],
            thing_dataset_id_to_contiguous_id=contiguous,
        )
    images = read_coco(json_file, COCO_TO[target])
    try:
        present = set(os.listdir(image_root))
    except OSError as error:
        raise InputError(f"cannot read the folder '{image_root}': {error.strerror}") from error
    records = []
    for image in images:
        if not image.instances:
            continue
        path = Path(image_root, image.name)
        if image.name not in present:
            raise InputError(f"{json_file}: image {image.id}: no file '{path}'")
        records.append(
            {
                "file_name": str(path),
                "height": image.height,
                "width": image.width,
                "image_id": image.id,
                "annotations": [
                    {
                        "id": instance.id,
                        "category_id": contiguous[COCO_TO[target][instance.category]],
                        "iscrowd": int(instance.crowd),
                        "bbox": instance.box,
                        "bbox_mode": BoxMode.XYWH_ABS,
                        "segmentation": instance.segmentation,
                    }
                    for instance in image.instances
                ],
            }
        )
    return records
