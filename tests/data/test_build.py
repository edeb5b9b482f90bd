"""Data loaders: their output, and the input they refuse."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from seqformer import add_seqformer_config
from seqformer.data import build_test_loader, build_train_loader, resolve_datasets
from seqformer.data.build import training_datasets, training_order
from seqformer.errors import InputError


@pytest.fixture
def cfg(toy: Any) -> CfgNode:
    cfg = get_cfg()
    add_seqformer_config(cfg)
    cfg.INPUT.SAMPLING_FRAME_NUM = 2
    cfg.INPUT.MIN_SIZE_TRAIN = (48,)
    cfg.INPUT.MIN_SIZE_TEST = 48
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.MODEL.SeqFormer.NUM_CLASSES = 3
    cfg.DATASETS.TRAIN = resolve_datasets([f"ytvis:{toy.train}:{toy.frames}"])
    cfg.DATASETS.TEST = resolve_datasets([f"ytvis:{toy.val}:{toy.frames}"])
    return cfg


@pytest.fixture
def images(tmp_path: Path) -> Iterator[str]:
    """A dataset of four images, one without an instance and one with 26."""
    records = []
    for number, count in enumerate([2, 0, 26, 1]):
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.full((48, 64, 3), 40 * number, dtype=np.uint8)).save(path)
        square = {
            "category_id": 1,
            "iscrowd": 0,
            "segmentation": [[10.0, 10.0, 40.0, 10.0, 40.0, 40.0, 10.0, 40.0]],
        }
        crowd = square | {"iscrowd": 1}
        records.append(
            {
                "file_name": str(path),
                "height": 48,
                "width": 64,
                "image_id": number,
                "annotations": [square] * count + [crowd],
            }
        )
    name = f"images_{tmp_path.name}"
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).thing_classes = ["circle", "square", "triangle"]
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def variant(toy: Any, path: Path, change: Any) -> tuple[str, ...]:
    data = json.loads(toy.train.read_text())
    change(data)
    path.write_text(json.dumps(data))
    return resolve_datasets([f"ytvis:{path}:{toy.frames}"])


@pytest.mark.parametrize("workers", [0, 1])
def test_training_batches_never_end(cfg: CfgNode, workers: int) -> None:
    cfg.DATALOADER.NUM_WORKERS = workers
    batches = list(islice(build_train_loader(cfg), 6))
    assert all(len(batch) == 2 and len(clip["image"]) == 2 for batch in batches for clip in batch)
    assert {clip["video_id"] for batch in batches for clip in batch} == {1, 2, 3}


def test_clips_do_not_depend_on_workers(cfg: CfgNode, images: str) -> None:
    cfg.DATASETS.TRAIN += (images,)
    cfg.SEED = 4
    cfg.INPUT.MIN_SIZE_TRAIN = (40, 48)
    loaded = []
    for workers in (0, 1, 2):
        cfg.DATALOADER.NUM_WORKERS = workers
        batches = islice(build_train_loader(cfg), 6)
        loaded.append([frame for batch in batches for clip in batch for frame in clip["image"]])
    for frames in loaded[1:]:
        assert all(a.equal(b) for a, b in zip(loaded[0], frames, strict=True))


def test_images_and_videos_are_mixed_by_ratio(cfg: CfgNode, images: str) -> None:
    cfg.DATASETS.TRAIN += (images,)
    cfg.DATASETS.TRAIN_RATIOS = (1, 3)
    cfg.SEED = 0
    clips = [clip for batch in islice(build_train_loader(cfg), 100) for clip in batch]
    counts = Counter("image_id" in clip for clip in clips)
    assert 130 < counts[True] < 170
    assert {clip["image_id"] for clip in clips if "image_id" in clip} == {0, 3}
    assert {clip["video_id"] for clip in clips if "video_id" in clip} == {1, 2, 3}
    assert all(len(clip["image"]) == len(clip["instances"]) == 2 for clip in clips)


@pytest.mark.parametrize(("seed", "same"), [(3, True), (-1, False)])
def test_a_seed_below_zero_is_a_random_one(cfg: CfgNode, seed: int, same: bool) -> None:
    cfg.SEED = seed
    seeds = [training_order(build_train_loader(cfg)).seed for _ in range(2)]
    assert (seeds[0] == seeds[1]) == same


def test_images_without_or_with_too_many_instances_are_dropped(cfg: CfgNode, images: str) -> None:
    cfg.DATASETS.TRAIN = (images,)
    assert [[image["image_id"] for image in dataset] for dataset in training_datasets(cfg)] == [[0, 3]]


def test_portrait_videos_are_not_mixed_with_others_in_a_batch(cfg: CfgNode, images: str) -> None:
    cfg.DATASETS.TRAIN = (images,)
    records = DatasetCatalog.get(images)
    records[3].update(height=64, width=48)
    Image.fromarray(np.zeros((64, 48, 3), dtype=np.uint8)).save(records[3]["file_name"])
    batches = list(islice(build_train_loader(cfg), 12))
    assert {tuple(clip["height"] > clip["width"] for clip in batch) for batch in batches} == {
        (True, True),
        (False, False),
    }


def test_datasets_that_detectron2_cannot_read_are_named(cfg: CfgNode) -> None:
    DatasetCatalog.register("broken_images", lambda: Path("nowhere.json").read_text())
    cfg.DATASETS.TRAIN = ("broken_images",)
    try:
        with pytest.raises(InputError, match="^dataset 'broken_images' cannot be read: .*nowhere.json"):
            build_train_loader(cfg)
    finally:
        DatasetCatalog.remove("broken_images")


def test_test_loader_yields_every_video_once(cfg: CfgNode) -> None:
    batches = list(build_test_loader(cfg, cfg.DATASETS.TEST[0]))
    assert [[video["video_id"] for video in batch] for batch in batches] == [[1]]


def test_videos_without_instances_are_dropped(cfg: CfgNode, toy: Any, tmp_path: Path) -> None:
    def change(data: dict) -> None:
        data["annotations"] = [a for a in data["annotations"] if a["video_id"] != 1]
        for annotation in data["annotations"]:
            annotation["iscrowd"] = int(annotation["video_id"] == 2)

    cfg.DATASETS.TRAIN = variant(toy, tmp_path / "few.json", change)
    assert [[video["video_id"] for video in videos] for videos in training_datasets(cfg)] == [[3]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("annotations"), "has no annotations, so it cannot be used for training"),
        (lambda d: d.update(annotations=[]), "no video or image with an instance"),
    ],
)
def test_unusable_datasets_are_refused(
    cfg: CfgNode, toy: Any, tmp_path: Path, change: Any, message: str
) -> None:
    cfg.DATASETS.TRAIN = variant(toy, tmp_path / "none.json", change)
    with pytest.raises(InputError, match=message):
        build_train_loader(cfg)


def test_classes_must_agree(cfg: CfgNode, toy: Any, tmp_path: Path) -> None:
    def rename(data: dict) -> None:
        data["categories"][0]["name"] = "disc"

    cfg.DATASETS.TRAIN += variant(toy, tmp_path / "other.json", rename)
    with pytest.raises(InputError, match="different classes"):
        build_train_loader(cfg)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("MODEL.SeqFormer.NUM_CLASSES", 2, "3 classes, but the model has 2: set MODEL.SeqFormer.NUM_CLASSES"),
        ("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler", "SAMPLER_TRAIN must be one of"),
        ("DATASETS.TRAIN", (), "DATASETS.TRAIN is empty"),
        ("DATASETS.TRAIN_RATIOS", (1, 2), "for each of 1 datasets, not \\(1, 2\\)"),
    ],
)
def test_bad_configs_are_refused(cfg: CfgNode, key: str, value: Any, message: str) -> None:
    cfg.merge_from_list([key, value])
    with pytest.raises(InputError, match=message):
        build_train_loader(cfg)


@pytest.mark.parametrize("count", [2, 4])
def test_test_set_must_have_the_classes_of_the_model(cfg: CfgNode, count: int) -> None:
    cfg.MODEL.SeqFormer.NUM_CLASSES = count
    with pytest.raises(
        InputError, match=f"has 3 classes, but the model has {count}: set MODEL.SeqFormer.NUM_CLASSES"
    ):
        build_test_loader(cfg, cfg.DATASETS.TEST[0])
