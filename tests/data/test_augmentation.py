"""Clip augmentation: one random transform for all frames, and the names in the config."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from detectron2.config import CfgNode, get_cfg
from detectron2.data import transforms as T
from fvcore.transforms.transform import HFlipTransform, NoOpTransform, VFlipTransform

from seqformer import add_seqformer_config
from seqformer.data.augmentation import build_clip_augmentation
from seqformer.errors import InputError


def config(**options: Any) -> CfgNode:
    cfg = get_cfg()
    add_seqformer_config(cfg)
    cfg.INPUT.merge_from_list([item for pair in options.items() for item in pair])
    return cfg


def sample(cfg: CfgNode, image: np.ndarray, is_train: bool = True) -> tuple[np.ndarray, T.TransformList]:
    data = T.AugInput(image)
    transforms = build_clip_augmentation(cfg, is_train)(data)
    return data.image, transforms


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


@pytest.mark.parametrize("style", ["choice_by_clip", "choice"])
def test_sizes_are_chosen_from_the_list(image: np.ndarray, style: str) -> None:
    cfg = config(MIN_SIZE_TRAIN=(30, 45, 200), MAX_SIZE_TRAIN=100, MIN_SIZE_TRAIN_SAMPLING=style)
    shapes = {sample(cfg, image)[0].shape[:2] for _ in range(40)}
    assert shapes == {(30, 40), (45, 60), (75, 100)}


@pytest.mark.parametrize("style", ["range_by_clip", "range"])
def test_sizes_from_a_range(image: np.ndarray, style: str) -> None:
    cfg = config(MIN_SIZE_TRAIN=(30, 33), MAX_SIZE_TRAIN=100, MIN_SIZE_TRAIN_SAMPLING=style)
    assert {sample(cfg, image)[0].shape[0] for _ in range(60)} == {30, 31, 32, 33}


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("flip_by_clip", {HFlipTransform, NoOpTransform}),
        ("horizontal", {HFlipTransform, NoOpTransform}),
        ("vertical", {VFlipTransform, NoOpTransform}),
        ("none", set()),
    ],
)
def test_flips(image: np.ndarray, name: str, kinds: set[type]) -> None:
    cfg = config(RANDOM_FLIP=name)
    assert {type(t) for _ in range(40) for t in sample(cfg, image)[1].transforms[:-1]} == kinds


def test_all_frames_get_the_same_transform(image: np.ndarray) -> None:
    cfg = config(
        MIN_SIZE_TRAIN=(30, 45),
        RANDOM_FLIP="flip_by_clip",
        AUGMENTATIONS=["brightness", "contrast", "saturation"],
    )
    cfg.INPUT.CROP.ENABLED = True
    results = []
    for _ in range(10):
        changed, transforms = sample(cfg, image)
        np.testing.assert_array_equal(transforms.apply_image(image.copy()), changed)
        results.append(changed)
    assert any(a.shape != b.shape or (a != b).any() for a, b in zip(results, results[1:], strict=False))


def test_frames_and_masks_are_cropped_alike(image: np.ndarray) -> None:
    cfg = config(RANDOM_FLIP="none", MIN_SIZE_TRAIN=(0,))
    cfg.INPUT.CROP.merge_from_list(["ENABLED", True, "TYPE", "absolute", "SIZE", [20, 30]])
    changed, transforms = sample(cfg, image)
    assert changed.shape == (20, 30, 3)
    np.testing.assert_array_equal(transforms.apply_segmentation(image[..., 0]), changed[..., 0])


def test_half_of_the_clips_are_resized_and_cropped_first(image: np.ndarray) -> None:
    cfg = config(RANDOM_FLIP="none", MIN_SIZE_TRAIN=(0,))
    cfg.INPUT.CROP.merge_from_list(["ENABLED", True, "TYPE", "absolute_range", "SIZE", [384, 600]])
    shapes, cropped = [], 0
    for _ in range(200):
        changed, transforms = sample(cfg, image)  # of 60 x 80 pixels
        kinds = [type(t).__name__ for t in transforms.transforms]
        if "CropTransform" in kinds:
            cropped += 1
            resize, crop = transforms.transforms[:2]
            assert (resize.new_h, resize.new_w) in [(400, 533), (500, 667), (600, 800)]
            assert 384 <= crop.h <= min(600, resize.new_h) and 384 <= crop.w <= min(600, resize.new_w)
            shapes.append(changed.shape[:2])
        else:
            assert changed.shape == image.shape
    assert 75 < cropped < 125
    assert min(map(min, shapes)) < 400 and max(map(max, shapes)) > 580


def test_resize_follows_the_crop(image: np.ndarray) -> None:
    cfg = config(RANDOM_FLIP="none", MIN_SIZE_TRAIN=(30, 45), MAX_SIZE_TRAIN=100)
    cfg.INPUT.CROP.merge_from_list(["ENABLED", True, "TYPE", "absolute_range", "SIZE", [384, 600]])
    assert {min(sample(cfg, image)[0].shape[:2]) for _ in range(40)} == {30, 45}


@pytest.mark.parametrize(
    ("kind", "size", "message"),
    [
        ("absolute_range", [600, 384], "must be in increasing order"),
        ("square", [1, 1], "CROP.TYPE must be one of absolute, absolute_range, relative, relative_range"),
        ("absolute", [20], "SIZE two numbers"),
    ],
)
def test_bad_crops_are_refused(kind: str, size: list[int], message: str) -> None:
    cfg = config()
    cfg.INPUT.CROP.merge_from_list(["ENABLED", True, "TYPE", kind, "SIZE", size])
    with pytest.raises(InputError, match=message):
        build_clip_augmentation(cfg, is_train=True)


@pytest.mark.parametrize(
    ("image_format", "luma"), [("RGB", (0.299, 0.587, 0.114)), ("BGR", (0.114, 0.587, 0.299))]
)
def test_saturation_blends_every_frame_with_its_own_grey(
    image: np.ndarray, image_format: str, luma: tuple[float, ...]
) -> None:
    cfg = config(RANDOM_FLIP="none", MIN_SIZE_TRAIN=(0,), AUGMENTATIONS=["saturation"], FORMAT=image_format)
    _, transforms = sample(cfg, image)
    weight = transforms.transforms[-1].weight
    assert 0.9 <= weight <= 1.1
    other = image[::-1].copy()
    grey = (other @ np.asarray(luma))[..., None]
    expected = np.clip(weight * other + (1 - weight) * grey, 0, 255)
    assert np.abs(transforms.apply_image(other) - expected).max() <= 1.01  # cut to whole numbers
    mask = image[..., 0]
    np.testing.assert_array_equal(transforms.apply_segmentation(mask), mask)


def test_rotation_keeps_the_size(image: np.ndarray) -> None:
    pytest.importorskip("cv2")
    cfg = config(RANDOM_FLIP="none", MIN_SIZE_TRAIN=(0,), AUGMENTATIONS=["rotation"])
    changed, transforms = sample(cfg, image)
    assert changed.shape == image.shape and (changed != image).any()
    assert transforms.apply_segmentation(image[..., 0]).shape == image.shape[:2]


def test_test_frames_are_only_resized(image: np.ndarray) -> None:
    cfg = config(MIN_SIZE_TEST=30, AUGMENTATIONS=["brightness"])
    cfg.INPUT.CROP.ENABLED = True
    changed, transforms = sample(cfg, image, is_train=False)
    assert changed.shape == (30, 40, 3)
    assert len(transforms) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"MIN_SIZE_TRAIN_SAMPLING": "some"}, "MIN_SIZE_TRAIN_SAMPLING must be .* not 'some'"),
        ({"MIN_SIZE_TRAIN_SAMPLING": "range", "MIN_SIZE_TRAIN": (1, 2, 3)}, "two sizes"),
        ({"RANDOM_FLIP": "diagonal"}, "RANDOM_FLIP must be .* not 'diagonal'"),
        ({"AUGMENTATIONS": ["fog"]}, "no augmentation 'fog'"),
    ],
)
def test_unknown_names(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_clip_augmentation(config(**options), is_train=True)
