"""COCO images under the categories of a video dataset, to train on as pseudo-videos."""

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
    """Reads the COCO instances whose category a video dataset also has.

    Args:
        json_file: instances_train2017.json or the like.
        image_root: the folder of the images.
        target: whose categories to use: "ytvis_2019", "ytvis_2021" or "ovis".
        dataset_name: where to set "thing_classes", "thing_colors" and "thing_dataset_id_to_contiguous_id"
            (of the target's ids) in Detectron2's MetadataCatalog.

    Returns:
        A dict for every image with such an instance, as Detectron2's COCO loader returns it: file_name,
        height, width (pixels), image_id and annotations, dicts with id, category_id (the target's, 0-based
        and contiguous, as :func:`seqformer.data.load_ytvis_json` counts them), iscrowd, bbox (xywh, pixels),
        bbox_mode and segmentation (polygons, or a compressed RLE). Instances of other categories, and those
        without a polygon of three corners, are left out.

    Raises:
        InputError: names file, image and annotation if something is missing or malformed; also if there is
            no such target.
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
