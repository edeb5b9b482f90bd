"""Data loaders for training and testing."""

from __future__ import annotations

import logging
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import (
    DatasetCatalog,
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
)

from seqformer.data.mapper import YTVISDatasetMapper
from seqformer.errors import InputError

__all__ = ["build_test_loader", "build_train_loader", "training_videos"]

_SAMPLERS = ("TrainingSampler", "RandomSubsetTrainingSampler")


def training_videos(cfg: CfgNode) -> list[dict[str, Any]]:
    """Dataset dicts of all videos of DATASETS.TRAIN that have an instance to learn from.

    Raises:
        InputError: if there is none, datasets have different classes, or the model has too few.
    """
    if not cfg.DATASETS.TRAIN:
        raise InputError("DATASETS.TRAIN is empty")
    videos: list[dict[str, Any]] = []
    for name in cfg.DATASETS.TRAIN:
        dataset = DatasetCatalog.get(name)
        if any("annotations" not in video for video in dataset):
            raise InputError(f"dataset '{name}' has no annotations, so it cannot be trained on")
        videos += dataset
    classes = {name: MetadataCatalog.get(name).thing_classes for name in cfg.DATASETS.TRAIN}
    first = cfg.DATASETS.TRAIN[0]
    for name, found in classes.items():
        if found != classes[first]:
            raise InputError(f"datasets '{first}' and '{name}' have different classes")
    if len(classes[first]) > cfg.MODEL.SeqFormer.NUM_CLASSES:
        raise InputError(
            f"dataset '{first}' has {len(classes[first])} classes, the model "
            f"{cfg.MODEL.SeqFormer.NUM_CLASSES}: set MODEL.SeqFormer.NUM_CLASSES"
        )
    usable = [video for video in videos if _has_instance(video)]
    if not usable:
        raise InputError(f"no video of {', '.join(cfg.DATASETS.TRAIN)} has an instance")
    logging.getLogger(__name__).info(
        "%d of %d videos have instances; %d classes", len(usable), len(videos), len(classes[first])
    )
    return usable


def _has_instance(video: dict[str, Any]) -> bool:
    return any(not instance["iscrowd"] for frame in video["annotations"] for instance in frame)


def build_train_loader(cfg: CfgNode) -> Any:
    """An endless loader of batches (lists) of training clips."""
    if cfg.DATALOADER.SAMPLER_TRAIN not in _SAMPLERS:
        raise InputError(
            f"DATALOADER.SAMPLER_TRAIN must be one of {', '.join(_SAMPLERS)}, "
            f"not '{cfg.DATALOADER.SAMPLER_TRAIN}'"
        )
    return build_detection_train_loader(
        cfg, mapper=YTVISDatasetMapper(cfg, is_train=True), dataset=training_videos(cfg)
    )


def build_test_loader(cfg: CfgNode, dataset_name: str) -> Any:
    """A loader of whole videos, one at a time."""
    return build_detection_test_loader(
        dataset=DatasetCatalog.get(dataset_name),
        mapper=YTVISDatasetMapper(cfg, is_train=False),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )
