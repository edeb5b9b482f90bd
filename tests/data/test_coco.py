"""COCO with the categories of a video dataset."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from PIL import Image

from seqformer.data import load_coco_as_ytvis
from seqformer.data.datasets import BUILTIN_DATASETS, register_builtin_datasets
from seqformer.errors import InputError
from seqformer.formats.rle import decode_mask

SQUARE = [2.0, 2.0, 8.0, 2.0, 8.0, 8.0, 2.0, 8.0]
PERSON, BICYCLE, PIZZA = 1, 2, 59


def annotation(id_: int, image: int, category: int, **values: Any) -> dict[str, Any]:
    entry = {"id": id_, "image_id": image, "category_id": category, "iscrowd": 0, "bbox": [2, 2, 6, 6]}
    return entry | {"segmentation": [SQUARE]} | values


@pytest.fixture
def coco(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Writes a COCO dataset of three images with the given annotations; returns JSON and folder."""
    folder = tmp_path / "coco" / "train2017"

    def write(*annotations: dict[str, Any], **changes: Any) -> tuple[Path, Path]:
        folder.mkdir(parents=True, exist_ok=True)
        images = []
        for number in (3, 1, 2):
            Image.new("RGB", (20, 10)).save(folder / f"{number}.jpg")
            images.append({"id": number, "file_name": f"{number}.jpg", "height": 10, "width": 20})
        path = tmp_path / "coco" / "annotations" / "instances_train2017.json"
        path.parent.mkdir(exist_ok=True)
        data = {"images": images, "annotations": list(annotations), "categories": []}
        path.write_text(json.dumps(data | changes))
        return path, folder

    return write


def test_images_with_mapped_instances(coco: Callable) -> None:
    crowd = {"size": [10, 20], "counts": [100, 20, 80]}
    paths = coco(
        annotation(7, 1, PERSON),
        annotation(8, 2, PIZZA),
        annotation(9, 3, BICYCLE, iscrowd=1, segmentation=crowd),
        annotation(10, 3, PIZZA),
        annotation(11, 3, PERSON, segmentation=[[1, 1, 2, 2], SQUARE]),
        annotation(12, 1, PERSON, segmentation=[[1, 1, 2, 2]]),
    )
    records = load_coco_as_ytvis(*paths, "ytvis_2021", "coco_test_2021")
    assert [record["image_id"] for record in records] == [3, 1]
    classes = MetadataCatalog.get("coco_test_2021").thing_classes
    assert len(classes) == 40
    first, second = records
    assert first["file_name"] == str(paths[1] / "3.jpg") and (first["height"], first["width"]) == (10, 20)
    assert [(a["id"], classes[a["category_id"]]) for a in first["annotations"]] == [
        (9, "motorbike"),
        (11, "person"),
    ]
    mask = decode_mask(first["annotations"][0]["segmentation"])
    np.testing.assert_array_equal(mask.flatten(order="F"), np.repeat([0, 1, 0], [100, 20, 80]))
    assert first["annotations"][0]["iscrowd"] == 1
    assert first["annotations"][1]["segmentation"] == [SQUARE], "no polygon of two corners"
    assert second["annotations"] == [
        {
            "id": 7,
            "category_id": classes.index("person"),
            "iscrowd": 0,
            "bbox": [2, 2, 6, 6],
            "bbox_mode": BoxMode.XYWH_ABS,
            "segmentation": [SQUARE],
        }
    ]


@pytest.mark.parametrize(
    ("name", "classes", "person"),
    [
        ("coco2ytvis2019_train", 40, 0),
        ("coco2ytvis2021_train", 40, 25),
        ("coco2ovis_train", 25, 0),
    ],
)
def test_registered_names(
    coco: Callable, monkeypatch: pytest.MonkeyPatch, name: str, classes: int, person: int
) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(coco(annotation(1, 2, PERSON))[1].parents[1]))
    try:
        (record,) = DatasetCatalog.get(name)
        metadata = MetadataCatalog.get(name)
        assert len(metadata.thing_classes) == len(metadata.thing_colors) == classes
        assert record["annotations"][0]["category_id"] == person
        assert metadata.thing_dataset_id_to_contiguous_id == {n + 1: n for n in range(classes)}
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
        register_builtin_datasets()
    assert name in BUILTIN_DATASETS


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (annotation(5, 4, PERSON), "image 4, annotation 5: there is no image with that id"),
        (annotation(5, 1, PERSON, bbox=[1, 2]), r"image 1, annotation 5: 'bbox' must be .* not \[1, 2\]"),
        (annotation(5, 1, PERSON, segmentation=[["a"] * 6]), "image 1, annotation 5: malformed polygon"),
        (
            annotation(5, 1, PERSON, segmentation={"size": [10, 20], "counts": [7]}),
            "image 1, annotation 5: malformed RLE: the runs cover 7 pixels",
        ),
        (
            annotation(5, 1, PERSON, segmentation={"size": [9, 20], "counts": [180]}),
            "image 1, annotation 5: the mask's size",
        ),
    ],
)
def test_malformed_annotations(coco: Callable, entry: dict[str, Any], message: str) -> None:
    paths = coco(entry)
    with pytest.raises(InputError, match=f"{paths[0]}: {message}"):
        load_coco_as_ytvis(*paths, "ovis")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": 1}, "'images' must be a list of objects; is it COCO format"),
        ({"annotations": [1]}, "'annotations' must be a list of objects"),
        ({"images": [{"id": 1, "height": 0, "width": 2}]}, "image 1: 'height' must be a positive integer"),
        ({"images": [{"id": 1, "height": 3, "width": 2}]}, "image 1: no 'file_name'"),
    ],
)
def test_malformed_files(coco: Callable, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_coco_as_ytvis(*coco(**changes), "ovis")


def test_missing_files_and_targets(coco: Callable, tmp_path: Path) -> None:
    json_file, folder = coco(annotation(5, 1, PERSON))
    with pytest.raises(InputError, match="no categories of 'coco'; available: ytvis_2019, ytvis_2021, ovis"):
        load_coco_as_ytvis(json_file, folder, "coco")
    with pytest.raises(InputError, match="cannot read the folder"):
        load_coco_as_ytvis(json_file, tmp_path / "none", "ovis")
    (folder / "1.jpg").unlink()
    with pytest.raises(InputError, match="image 1: no file '.*1.jpg'"):
        load_coco_as_ytvis(json_file, folder, "ovis")
