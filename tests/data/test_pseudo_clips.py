"""Clips made of images: the warps and the instances."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import transforms as T
from PIL import Image

from seqformer import add_seqformer_config
from seqformer.data.pseudo_clips import MAX_INSTANCES, CocoClipDatasetMapper
from seqformer.errors import InputError
from seqformer.formats.rle import encode_masks

SIZE = (120, 160)


def mapper(num_frames: int = 5, image_format: str = "RGB") -> CocoClipDatasetMapper:
    """A mapper that only warps."""
    return CocoClipDatasetMapper(T.AugmentationList([]), image_format=image_format, num_frames=num_frames)


@pytest.fixture
def picture() -> np.ndarray:
    rng = np.random.default_rng(0)
    return cv2.resize(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8), SIZE[::-1])


@pytest.fixture
def record(tmp_path: Path, picture: np.ndarray) -> dict[str, Any]:
    path = tmp_path / "image.png"
    Image.fromarray(picture).save(path)
    masks = np.zeros((3, *SIZE), dtype=bool)
    masks[0, 40:80, 50:90] = True
    masks[1, 100:118, 5:40] = True
    masks[2, 0:6, 0:6] = True  # in a corner, so that some warps move it out of the image
    annotations = [
        {"id": 30 + n, "category_id": 2 * n, "segmentation": rle, "iscrowd": 0}
        for n, rle in enumerate(encode_masks(masks))
    ]
    return {
        "file_name": str(path),
        "height": SIZE[0],
        "width": SIZE[1],
        "image_id": 5,
        "annotations": annotations,
    }


def test_one_frame_is_the_image_itself(record: dict[str, Any], picture: np.ndarray) -> None:
    clip = mapper(num_frames=5)(record)
    same = [np.array_equal(frame.numpy().transpose(1, 2, 0), picture) for frame in clip["image"]]
    assert sum(same) == 1
    first = clip["instances"][same.index(True)]
    assert first.gt_masks.tensor[0, 40:80, 50:90].all() and first.gt_masks.tensor[0].sum() == 1600
    assert clip["length"] == 5 and clip["file_names"] == [record["file_name"]] * 5


def test_the_image_is_at_any_position(record: dict[str, Any], picture: np.ndarray) -> None:
    frames = [[f.numpy().transpose(1, 2, 0) for f in mapper(3)(record)["image"]] for _ in range(30)]
    places = {place for clip in frames for place, frame in enumerate(clip) if np.array_equal(frame, picture)}
    assert places == {0, 1, 2}


def test_instances_keep_their_ids_unless_warped_away(record: dict[str, Any]) -> None:
    seen = set()
    for _ in range(40):
        clip = mapper()(record)
        assert clip["instances"][0].gt_classes.tolist() == [0, 2, 4]
        for instances in clip["instances"]:
            visible = instances.gt_masks.tensor.flatten(1).any(1)
            assert instances.gt_ids.tolist() == [n if v else -1 for n, v in enumerate(visible)]
            seen.add(instances.gt_ids[2].item())
    assert seen == {2, -1}


def test_one_frame_clips_are_not_warped(record: dict[str, Any], picture: np.ndarray) -> None:
    clip = mapper(num_frames=1)(record)
    np.testing.assert_array_equal(clip["image"][0].numpy().transpose(1, 2, 0), picture)


@pytest.mark.parametrize("count", [0, MAX_INSTANCES + 1])
def test_images_with_too_few_or_too_many_instances(record: dict[str, Any], count: int) -> None:
    record["annotations"] = record["annotations"][:1] * count
    assert mapper()(record) is None


def test_the_most_instances_allowed(record: dict[str, Any]) -> None:
    record["annotations"] = record["annotations"][:2] * 12 + record["annotations"][:1]
    clip = mapper(2)(record)
    masks = clip["instances"][1].gt_masks.tensor
    assert len(masks) == 25 and masks[0].any()
    assert all(mask.equal(masks[n % 2]) for n, mask in enumerate(masks))


def test_the_record_is_not_changed(record: dict[str, Any]) -> None:
    before = copy.deepcopy(record)
    mapper()(record)
    assert record == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(file_name="nowhere.png"), r"^image 5: file 'nowhere.png' cannot be read: "),
        (lambda r: r.update(height=90), r"^image 5: file '.*' has 160x120 pixels, .* for 160x90"),
        (
            lambda r: r["annotations"][1].update(segmentation=[[1.0, 2.0, 3.0, 4.0]]),
            r"^image 5, file '.*', annotation 31: malformed polygon",
        ),
        (lambda r: r["annotations"][0].pop("segmentation"), r"annotation 30: no segmentation"),
        (
            lambda r: r["annotations"][0].pop("id") and r["annotations"][0].update(segmentation=None),
            r"annotation number 0: no segmentation",
        ),
        (
            lambda r: r["annotations"][0].update(segmentation={"size": [10, 10], "counts": "PPYo1"}),
            r"annotation 30: the mask's size",
        ),
    ],
)
def test_bad_images_are_named(record: dict[str, Any], change: Any, message: str) -> None:
    change(record)
    with pytest.raises(InputError, match=message) as error:
        mapper()(record)
    assert "\n" not in str(error.value)


def test_unknown_pretraining_type() -> None:
    cfg = get_cfg()
    add_seqformer_config(cfg)
    cfg.INPUT.PRETRAIN_TYPE = "flow"
    with pytest.raises(InputError, match="INPUT.PRETRAIN_TYPE must be 'affine', not 'flow'"):
        CocoClipDatasetMapper(cfg)
