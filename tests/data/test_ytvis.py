"""YouTube-VIS JSON to dataset dicts: content, registration, and errors for bad files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from seqformer.data import load_ytvis_json, register_ytvis_instances, resolve_datasets
from seqformer.data.toy import SHAPES
from seqformer.errors import InputError
from seqformer.formats.rle import decode_mask, rle_counts


@pytest.fixture
def edited(toy: Any, tmp_path: Path) -> Callable[[Callable[[dict], None]], Path]:
    """Writes a changed copy of train.json."""

    def write(change: Callable[[dict], None]) -> Path:
        data = json.loads(toy.train.read_text())
        change(data)
        path = tmp_path / "edited.json"
        path.write_text(json.dumps(data))
        return path

    return write


def test_annotations_are_listed_by_frame(toy: Any, edited: Callable) -> None:
    def hide(data: dict) -> None:
        data["annotations"][1]["segmentations"][3] = data["annotations"][1]["bboxes"][3] = None

    path = edited(hide)
    data = json.loads(path.read_text())
    videos = load_ytvis_json(path, toy.frames, "toy_content")
    assert [video["video_id"] for video in videos] == [1, 2, 3]
    for video, source in zip(videos, data["videos"], strict=True):
        assert (video["height"], video["width"], video["length"]) == (48, 64, 8)
        assert video["file_names"] == [str(toy.frames / name) for name in source["file_names"]]
        assert len(video["annotations"]) == 8
    metadata = MetadataCatalog.get("toy_content")
    assert metadata.thing_classes == list(SHAPES)
    assert metadata.thing_dataset_id_to_contiguous_id == {1: 0, 2: 1, 3: 2}
    for annotation in data["annotations"]:
        for frame, segmentation in enumerate(annotation["segmentations"]):
            actual = [
                a
                for a in videos[annotation["video_id"] - 1]["annotations"][frame]
                if a["id"] == annotation["id"]
            ]
            if segmentation is None:
                assert actual == []
            else:
                assert actual == [
                    {
                        "id": annotation["id"],
                        "category_id": annotation["category_id"] - 1,
                        "segmentation": segmentation,
                        "iscrowd": 0,
                        "bbox": annotation["bboxes"][frame],
                    }
                ]


def test_category_ids_with_gaps_become_contiguous(toy: Any, edited: Callable) -> None:
    def change(data: dict) -> None:
        for entry in data["categories"]:
            entry["id"] = 90 - 10 * entry["id"]
        for entry in data["annotations"]:
            entry["category_id"] = 90 - 10 * entry["category_id"]

    before = load_ytvis_json(toy.train, toy.frames)
    after = load_ytvis_json(edited(change), toy.frames, "toy_gaps")
    assert MetadataCatalog.get("toy_gaps").thing_classes == list(SHAPES[::-1])
    classes = [[a["category_id"] for frame in v["annotations"] for a in frame] for v in before]
    reversed_classes = [[2 - a["category_id"] for frame in v["annotations"] for a in frame] for v in after]
    assert classes == reversed_classes


def test_uncompressed_masks_and_missing_boxes_and_ids(toy: Any, edited: Callable) -> None:
    def change(data: dict) -> None:
        for entry in data["annotations"]:
            del entry["bboxes"], entry["id"], entry["iscrowd"]
            for mask in filter(None, entry["segmentations"]):
                mask["counts"] = rle_counts(mask["counts"]).tolist()

    before = load_ytvis_json(toy.train, toy.frames)
    after = load_ytvis_json(edited(change), toy.frames)
    for left, right in zip(before, after, strict=True):
        for a, b in zip(sum(left["annotations"], []), sum(right["annotations"], []), strict=True):
            np.testing.assert_array_equal(decode_mask(a["segmentation"]), decode_mask(b["segmentation"]))
            assert "bbox" not in b and b["iscrowd"] == 0 and b["id"] == a["id"] - 1


@pytest.mark.parametrize("change", [lambda d: d.pop("annotations"), lambda d: d.update(annotations=None)])
def test_test_sets_have_no_annotations(toy: Any, edited: Callable, change: Callable) -> None:
    videos = load_ytvis_json(edited(change), toy.frames)
    assert ["annotations" in video for video in videos] == [False] * 3


def _annotation(**values: Any) -> Callable[[dict], None]:
    return lambda data: data["annotations"][2].update(values)


def _video(**values: Any) -> Callable[[dict], None]:
    return lambda data: data["videos"][1].update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            _annotation(category_id=4),
            "video 1, annotation 3: category_id 4 is not one of the categories 1 to 3",
        ),
        (_annotation(category_id=None), "video 1, annotation 3: category_id None"),
        (_annotation(video_id=17), "video 17, annotation 3: there is no video with that id"),
        (_annotation(video_id=[1]), "video [1], annotation 3: 'video_id' must be an integer, not [1]"),
        (
            _annotation(segmentations=[None]),
            "video 1, annotation 3: 'segmentations' has 1 entries, but the video has 8",
        ),
        (_annotation(segmentations=None), "video 1, annotation 3: 'segmentations' must be a list"),
        (
            _annotation(bboxes=[None] * 9),
            "video 1, annotation 3: 'bboxes' has 9 entries, but the video has 8 frames",
        ),
        (
            _annotation(segmentations=[None, "x"] + [None] * 6),
            "video 1, annotation 3, frame 1: a segmentation",
        ),
        (
            _annotation(bboxes=[[1, 2, 3]] + [None] * 7),
            "video 1, annotation 3, frame 0: a box must be x, y, width and height in pixels, not [1, 2, 3]",
        ),
        (
            _annotation(areas=[-1.0] + [None] * 7),
            "video 1, annotation 3, frame 0: an area must be a number of pixels, not -1.0",
        ),
        (_annotation(id=2), "video 1, annotation 2: ids must be integers, each used once"),
        (
            _video(file_names=["train_002/00000.jpg", "gone.jpg"], length=2),
            "video 2: 1 of 2 frames are missing",
        ),
        (_video(file_names=["nowhere/0.jpg"] * 8), "video 2: 8 of 8 frames are missing"),
        (_video(file_names=[]), "video 2: 'file_names' must be a list of at least one name"),
        (_video(length=7), "video 2: 'length' is 7, but there are 8 file_names"),
        (_video(height=0), "video 2: 'height' must be a positive integer"),
        (_video(width=None), "video 2: 'width' must be a positive integer"),
        (_video(id=1), "two videos have the id 1"),
        (_video(id="b"), "video b: 'id' must be"),
        (lambda d: d.update(videos=[], annotations=[]), "no videos"),
        (lambda d: d.update(categories=[]), "no categories"),
        (lambda d: d.pop("categories"), "'categories' must be a list of objects"),
        (lambda d: d["categories"][0].pop("name"), "a category needs an integer 'id' and a 'name'"),
        (lambda d: d["categories"][0].update(id=2), "two categories have the id 2"),
        (lambda d: d["categories"][0].update(name="square"), "two categories have the name 'square'"),
        (lambda d: d.update(annotations=[1]), "'annotations' must be a list of objects"),
    ],
)
def test_errors_name_file_video_and_annotation(
    toy: Any, edited: Callable, change: Callable[[dict], None], message: str
) -> None:
    path = edited(change)
    with pytest.raises(InputError) as error:
        load_ytvis_json(path, toy.frames)
    assert str(path) in str(error.value)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no file"), ("{", "is not JSON"), ("\udcff", "is not JSON"), ("[]", "not an object")],
)
def test_files_that_are_not_a_dataset(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "data.json"
    if content is not None:
        path.write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(InputError, match=message):
        load_ytvis_json(path, tmp_path)


def test_registration_in_one_call(toy: Any) -> None:
    register_ytvis_instances("toy_registered", {"note": "ours"}, toy.val, toy.frames)
    try:
        assert len(DatasetCatalog.get("toy_registered")) == 1
        metadata = MetadataCatalog.get("toy_registered")
        assert (metadata.note, metadata.json_file, metadata.evaluator_type) == ("ours", str(toy.val), "ytvis")
        assert resolve_datasets(["toy_registered"]) == ("toy_registered",)
    finally:
        DatasetCatalog.remove("toy_registered")


def test_frames_outside_the_folder_have_to_be_allowed(toy: Any, tmp_path: Path) -> None:
    content = json.loads(toy.val.read_text())
    content["videos"][0]["file_names"] = [str(toy.frames / n) for n in content["videos"][0]["file_names"]]
    (tmp_path / "outside.json").write_text(json.dumps(content))
    for name, allow in (("toy_inside", False), ("toy_outside", True)):
        register_ytvis_instances(name, {}, tmp_path / "outside.json", toy.frames, allow_outside=allow)
    with pytest.raises(InputError, match="is not in the folder of frames"):
        DatasetCatalog.get("toy_inside")
    assert DatasetCatalog.get("toy_outside") == load_ytvis_json(toy.val, toy.frames)
