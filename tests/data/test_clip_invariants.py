"""Frames, masks, boxes and ids of a clip match, whatever the augmentation.

Every instance has its own colour, so the expected masks follow from the pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from detectron2.config import CfgNode, get_cfg
from detectron2.structures import BoxMode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from seqformer import add_seqformer_config
from seqformer.data import CocoClipDatasetMapper, YTVISDatasetMapper
from seqformer.formats.rle import encode_masks

COLORS = np.array([(225, 30, 30), (30, 215, 30), (40, 40, 230), (225, 215, 30)])  # of classes 0 to 3
BACKGROUND = (128, 128, 128)
HEIGHT, WIDTH, LENGTH = 90, 120, 6
# Pixels this deep inside a mask must show the instance. Resampling blurs edges, and motion blur more so.
DEPTH = {"video": 3, "image": 8}

CROPS = st.sampled_from(
    [
        ("none", (0, 0)),
        ("absolute", (50, 60)),
        ("relative", (0.6, 0.7)),
        ("relative_range", (0.4, 0.4)),
        ("absolute_range", (384, 600)),
        ("absolute_range", (60, 200)),
    ]
)
AUGMENTATIONS = st.lists(
    st.sampled_from(["brightness", "contrast", "saturation", "rotation"]), unique=True, max_size=4
)
FLIPS = st.sampled_from(["flip_by_clip", "vertical", "none"])


def paint(path: Path, boxes: dict[int, tuple[int, int]]) -> np.ndarray:
    """Draws squares of 26 pixels, given left and top by instance. Returns visible masks (4, H, W)."""
    picture = np.full((HEIGHT, WIDTH, 3), BACKGROUND, dtype=np.uint8)
    masks = np.zeros((4, HEIGHT, WIDTH), dtype=bool)
    for instance, (left, top) in boxes.items():
        rows, columns = slice(max(top, 0), max(top + 26, 0)), slice(max(left, 0), max(left + 26, 0))
        picture[rows, columns] = COLORS[instance]
        masks[:, rows, columns] = False
        masks[instance, rows, columns] = True
    Image.fromarray(picture).save(path)
    return masks


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Four moving instances: one enters late, one leaves, two cross."""
    folder = tmp_path_factory.mktemp("video")
    names, masks = [], []
    for t in range(LENGTH):
        names.append(str(folder / f"{t}.png"))
        places = {0: (5 + 12 * t, 8), 1: (80 - 12 * t, 14), 2: (-40 + 14 * t, 50), 3: (70 + 11 * t, 58)}
        masks.append(paint(Path(names[-1]), places))
    by_instance = [encode_masks(np.stack([frame[n] for frame in masks])) for n in range(4)]
    annotations = [
        [
            {"id": 10 + n, "category_id": n, "segmentation": rles[t], "iscrowd": 0}
            for n, rles in enumerate(by_instance)
            if rles[t] is not None
        ]
        for t in range(LENGTH)
    ]
    return {
        "file_names": names,
        "height": HEIGHT,
        "width": WIDTH,
        "length": LENGTH,
        "video_id": 1,
        "annotations": annotations,
    }


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two instances as polygons, two as RLE, and a crowd."""
    path = tmp_path_factory.mktemp("image") / "image.png"
    places = {0: (10, 8), 1: (84, 12), 2: (20, 55), 3: (70, 52)}
    masks = encode_masks(paint(path, places))
    annotations = []
    for n, (left, top) in places.items():
        polygon = [left, top, left + 26, top, left + 26, top + 26, left, top + 26]
        segmentation = [[float(v) for v in polygon]] if n < 2 else masks[n]
        box = {"bbox": [left, top, 26, 26], "bbox_mode": BoxMode.XYWH_ABS}
        annotations.append({"category_id": n, "segmentation": segmentation, "iscrowd": 0} | box)
    crowd = {"category_id": 0, "segmentation": masks[0], "iscrowd": 1}
    return {
        "file_name": str(path),
        "height": HEIGHT,
        "width": WIDTH,
        "image_id": 7,
        "annotations": [*annotations, crowd],
    }


def config(crop: tuple[str, tuple[float, float]], flip: str, augmentations: list[str]) -> CfgNode:
    cfg = get_cfg()
    add_seqformer_config(cfg)
    options = cfg.INPUT
    options.FORMAT = "RGB"
    options.SAMPLING_FRAME_NUM = 3
    options.MIN_SIZE_TRAIN = (80, 100, 140)
    options.MIN_SIZE_TRAIN_SAMPLING = "choice_by_clip"
    options.RANDOM_FLIP = flip
    options.AUGMENTATIONS = augmentations
    if crop[0] != "none":
        options.CROP.ENABLED, options.CROP.TYPE, options.CROP.SIZE = True, crop[0], list(crop[1])
    return cfg


def check(clip: dict[str, Any], depth: int) -> None:
    """Checks that masks match the pixels, boxes are tight, and an instance keeps its id in all frames."""
    shapes = {tuple(picture.shape) for picture in clip["image"]}
    assert len(shapes) == 1 and len(clip["image"]) == len(clip["instances"]) == clip["length"] == 3
    first = clip["instances"][0]
    assert len(set(first.gt_classes.tolist())) == len(first) > 0
    ever = np.zeros(len(first), dtype=bool)
    for picture, instances in zip(clip["image"], clip["instances"], strict=True):
        assert tuple(picture.shape[1:]) == instances.image_size == tuple(instances.gt_masks.tensor.shape[1:])
        assert instances.gt_classes.equal(first.gt_classes)
        masks = instances.gt_masks.tensor.numpy()
        assert masks.sum(0).max() <= 1, "instances that did not overlap do now"
        visible = masks.any(axis=(1, 2))
        ever |= visible
        assert instances.gt_ids.tolist() == [n if seen else -1 for n, seen in enumerate(visible)]
        colors = picture.numpy().transpose(1, 2, 0).astype(int)
        for mask, box, label in zip(
            masks, instances.gt_boxes.tensor, instances.gt_classes.tolist(), strict=True
        ):
            rows, columns = np.nonzero(mask)
            tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else [0] * 4
            assert box.tolist() == tight
            inside = shrink(mask, depth)
            if inside.any():
                assert (nearest(colors[inside]) == label).mean() > 0.99, "the picture shows something else"
        # Outside the masks there is no instance: only grey, or black from beyond the image.
        outside = colors[shrink(~masks.any(0), depth)]
        if clip_shows_all(clip):
            assert (np.ptp(outside, axis=1) < 100).mean() > 0.99, "an instance without a mask"
    assert ever.all(), "an instance that no frame shows"


def clip_shows_all(clip: dict[str, Any]) -> bool:
    return len(clip["instances"][0]) == 4


def shrink(mask: np.ndarray, depth: int) -> np.ndarray:
    return cv2.erode(mask.astype(np.uint8), np.ones((2 * depth + 1,) * 2), borderValue=0).astype(bool)


def nearest(colors: np.ndarray) -> np.ndarray:
    """Returns the instance with the most similar hue, whatever the brightness."""
    centred = colors - colors.mean(1, keepdims=True)
    reference = COLORS - COLORS.mean(1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1, keepdims=True) * np.linalg.norm(reference, axis=1)
    return (centred @ reference.T / np.maximum(norms, 1e-6)).argmax(1)


common = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@common
@given(
    crop=CROPS,
    flip=FLIPS,
    augmentations=AUGMENTATIONS,
    shuffle=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_video_clips(
    video: dict[str, Any],
    crop: tuple[str, tuple[float, float]],
    flip: str,
    augmentations: list[str],
    shuffle: bool,
    seed: int,
) -> None:
    cfg = config(crop, flip, augmentations)
    cfg.INPUT.SAMPLING_FRAME_SHUFFLE = shuffle
    np.random.seed(seed)
    check(YTVISDatasetMapper(cfg)(video), DEPTH["video"])


@common
@given(crop=CROPS, flip=FLIPS, augmentations=AUGMENTATIONS, seed=st.integers(0, 2**31))
def test_pseudo_clips(
    image: dict[str, Any],
    crop: tuple[str, tuple[float, float]],
    flip: str,
    augmentations: list[str],
    seed: int,
) -> None:
    np.random.seed(seed)
    clip = CocoClipDatasetMapper(config(crop, flip, augmentations))(image)
    assert clip["image_id"] == 7
    check(clip, 2 * DEPTH["image"] if crop[0] == "absolute_range" else DEPTH["image"])
