"""Images as clips: the warps, and what a clip of them holds."""

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
from seqformer.data.rle import encode_masks
from seqformer.data.warp import Warp
from seqformer.errors import InputError

SIZE = (120, 160)


def mapper(num_frames: int = 5, image_format: str = "RGB") -> CocoClipDatasetMapper:
    """Only the warps."""
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
    masks[2, 0:6, 0:6] = True  # in a corner, from which some warps take it away
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


def test_the_image_comes_at_any_place(record: dict[str, Any], picture: np.ndarray) -> None:
    frames = [[f.numpy().transpose(1, 2, 0) for f in mapper(3)(record)["image"]] for _ in range(30)]
    places = {place for clip in frames for place, frame in enumerate(clip) if np.array_equal(frame, picture)}
    assert places == {0, 1, 2}


def test_instances_keep_their_ids_and_lose_them_where_warped_away(record: dict[str, Any]) -> None:
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


def test_as_many_instances_as_there_may_be(record: dict[str, Any]) -> None:
    record["annotations"] = record["annotations"][:2] * 12 + record["annotations"][:1]
    clip = mapper(2)(record)
    masks = clip["instances"][1].gt_masks.tensor
    assert len(masks) == 25 and masks[0].any()
    assert all(mask.equal(masks[n % 2]) for n, mask in enumerate(masks))


def test_the_record_is_left_alone(record: dict[str, Any]) -> None:
    before = copy.deepcopy(record)
    mapper()(record)
    assert record == before


def test_warps_stay_within_their_bounds() -> None:
    height, width = 400, 600
    corners = np.array([[[0, 0], [width, 0], [width, height], [0, height]]], dtype=np.float64)
    shifts, blurs, lengths, angles = [], 0, set(), []
    for _ in range(300):
        warp = Warp(height, width)
        center = np.array([[[width / 2, height / 2]]])
        # Where the view's centre was, in the image: shift and perspective together.
        source = cv2.perspectiveTransform(corners, np.linalg.inv(warp.matrix))
        moved = cv2.perspectiveTransform(center, warp.matrix)[0, 0] - center[0, 0]
        shifts.append(np.abs(moved) / (width, height))
        side = source[0, 1] - source[0, 0]
        angles.append(np.degrees(np.arctan2(side[1], side[0])))
        assert abs(warp.brightness) <= 40 and abs(warp.hue) <= 5 and abs(warp.saturation) <= 5
        blurs += warp.blur is not None
        if warp.blur is not None:
            lengths.add(len(warp.blur))
            assert warp.blur.sum() == pytest.approx(1, rel=1e-5)
    assert np.max(shifts) < 0.1 + 0.12  # perspective moves the centre, too
    assert np.max(np.abs(angles)) < 20 + 8 and np.max(angles) > 15 and np.min(angles) < -15
    assert lengths == {9, 11}
    assert 50 < blurs < 100


def test_a_warp_without_perspective_turns_and_shifts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seqformer.data.warp._PERSPECTIVE", 0.0)
    for _ in range(100):
        warp = Warp(300, 500)
        a, b = warp.matrix[0, 0], warp.matrix[0, 1]
        assert warp.matrix[2] == pytest.approx([0, 0, 1], abs=1e-9)
        assert a**2 + b**2 == pytest.approx(1, abs=1e-6)
        assert abs(np.degrees(np.arctan2(b, a))) <= 20
        center = warp.matrix @ (250, 150, 1)
        assert abs(center[0] - 250) <= 50 + 1e-6 and abs(center[1] - 150) <= 30 + 1e-6


@pytest.mark.parametrize("bgr", [False, True])
def test_colours_change_as_told(bgr: bool) -> None:
    warp = Warp(20, 20, bgr)
    warp.matrix, warp.blur = np.eye(3), None
    warp.hue, warp.saturation, warp.brightness = 0, 0, 30
    red = np.zeros((20, 20, 3), dtype=np.uint8)
    red[..., 2 if bgr else 0] = 180
    changed = warp.image(red)
    assert (changed[..., 2 if bgr else 0] == 210).all() and changed.sum() == 210 * 400
    warp.hue = 5  # of 256, from red towards yellow
    green = warp.image(red)[..., 1]
    assert (green > 10).all() and (warp.image(red)[..., 0 if bgr else 2] == 0).all()


def test_blur_runs_along_a_line() -> None:
    warp = Warp(41, 41)
    from seqformer.data.warp import _line

    warp.matrix, warp.blur = np.eye(3), _line(9, 0.0)
    warp.hue = warp.saturation = warp.brightness = 0
    dot = np.zeros((41, 41, 3), dtype=np.uint8)
    dot[20, 20] = 252
    rows, columns = np.nonzero(warp.image(dot)[..., 0])
    assert set(rows) == {20} and columns.tolist() == list(range(16, 25))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(file_name="nowhere.png"), r"^image 5: file 'nowhere.png' cannot be read: "),
        (lambda r: r.update(height=90), r"^image 5: file '.*' is 160x120 pixels, .* for 160x90"),
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


def test_unknown_kind_of_pretraining() -> None:
    cfg = get_cfg()
    add_seqformer_config(cfg)
    cfg.INPUT.PRETRAIN_TYPE = "flow"
    with pytest.raises(InputError, match="INPUT.PRETRAIN_TYPE must be 'affine', not 'flow'"):
        CocoClipDatasetMapper(cfg)
