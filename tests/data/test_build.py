"""Data loaders: what they yield and what they refuse."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from detectron2.config import CfgNode, get_cfg

from seqformer import add_seqformer_config
from seqformer.data import build_test_loader, build_train_loader, resolve_datasets
from seqformer.data.build import training_videos
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


def test_test_loader_gives_every_video_once(cfg: CfgNode) -> None:
    batches = list(build_test_loader(cfg, cfg.DATASETS.TEST[0]))
    assert [[video["video_id"] for video in batch] for batch in batches] == [[1]]


def test_videos_without_instances_are_left_out(cfg: CfgNode, toy: Any, tmp_path: Path) -> None:
    def change(data: dict) -> None:
        data["annotations"] = [a for a in data["annotations"] if a["video_id"] != 1]
        for annotation in data["annotations"]:
            annotation["iscrowd"] = int(annotation["video_id"] == 2)

    cfg.DATASETS.TRAIN = variant(toy, tmp_path / "few.json", change)
    assert [video["video_id"] for video in training_videos(cfg)] == [3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("annotations"), "has no annotations, so it cannot be trained on"),
        (lambda d: d.update(annotations=[]), "has an instance"),
    ],
)
def test_nothing_to_learn_from(cfg: CfgNode, toy: Any, tmp_path: Path, change: Any, message: str) -> None:
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
        ("MODEL.SeqFormer.NUM_CLASSES", 2, "3 classes, the model 2: set MODEL.SeqFormer.NUM_CLASSES"),
        ("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler", "SAMPLER_TRAIN must be one of"),
        ("DATASETS.TRAIN", (), "DATASETS.TRAIN is empty"),
    ],
)
def test_configs_that_do_not_fit(cfg: CfgNode, key: str, value: Any, message: str) -> None:
    cfg.merge_from_list([key, value])
    with pytest.raises(InputError, match=message):
        build_train_loader(cfg)
