"""Data loaders for training and testing."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import (
    DatasetCatalog,
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
)
from detectron2.utils import comm

from seqformer.data.mapper import YTVISDatasetMapper
from seqformer.data.order import TrainingClips, TrainingOrder
from seqformer.data.pseudo_clips import MAX_INSTANCES, CocoClipDatasetMapper, num_instances
from seqformer.errors import InputError

__all__ = [
    "ClipDatasetMapper",
    "build_test_loader",
    "build_train_loader",
    "training_datasets",
    "training_order",
]

_SAMPLERS = ("TrainingSampler", "RandomSubsetTrainingSampler")


class ClipDatasetMapper:
    """Maps dataset dicts of videos and of images to training clips.

    Args:
        videos: for dicts with file_names.
        images: for dicts with file_name.
    """

    def __init__(self, videos: YTVISDatasetMapper, images: CocoClipDatasetMapper):
        self.videos = videos
        self.images = images

    def __call__(self, record: dict[str, Any]) -> dict[str, Any] | None:
        """See the two mappers."""
        return self.videos(record) if "file_names" in record else self.images(record)


def training_datasets(cfg: CfgNode) -> list[list[dict[str, Any]]]:
    """Dataset dicts of DATASETS.TRAIN, a list a dataset.

    Videos without an instance are left out, as are images without one or with more than 25.

    Raises:
        InputError: if a dataset cannot be read or nothing of it is left, datasets have different classes, or
            the model has too few.
    """
    names = cfg.DATASETS.TRAIN
    if not names:
        raise InputError("DATASETS.TRAIN is empty")
    found = [_read(name) for name in names]
    classes = {name: MetadataCatalog.get(name).thing_classes for name in names}
    for name in names[1:]:
        if classes[name] != classes[names[0]]:
            raise InputError(f"datasets '{names[0]}' and '{name}' have different classes")
    if len(classes[names[0]]) > cfg.MODEL.SeqFormer.NUM_CLASSES:
        raise InputError(
            f"dataset '{names[0]}' has {len(classes[names[0]])} classes, the model "
            f"{cfg.MODEL.SeqFormer.NUM_CLASSES}: set MODEL.SeqFormer.NUM_CLASSES"
        )
    logger = logging.getLogger(__name__)
    datasets = []
    for name, records in zip(names, found, strict=True):
        usable = [record for record in records if _usable(record)]
        if not usable:
            raise InputError(f"no video or image of '{name}' has an instance")
        logger.info(
            "%s: %d of %d are usable; %d classes", name, len(usable), len(records), len(classes[name])
        )
        datasets.append(usable)
    return datasets


def _read(name: str) -> list[dict[str, Any]]:
    try:
        records = DatasetCatalog.get(name)
    except InputError:
        raise
    except (OSError, ValueError, KeyError, AssertionError) as error:  # of Detectron2's own readers
        reason = " ".join(str(error).split())
        raise InputError(f"dataset '{name}' cannot be read: {type(error).__name__}: {reason}") from error
    if any("annotations" not in record for record in records):
        raise InputError(f"dataset '{name}' has no annotations, so it cannot be trained on")
    return records


def _usable(record: dict[str, Any]) -> bool:
    if "file_names" in record:
        return any(not instance["iscrowd"] for frame in record["annotations"] for instance in frame)
    return 1 <= num_instances(record) <= MAX_INSTANCES


def _build_order(cfg: CfgNode, datasets: list[list[dict[str, Any]]]) -> TrainingOrder:
    name = cfg.DATALOADER.SAMPLER_TRAIN
    if name not in _SAMPLERS:
        raise InputError(f"DATALOADER.SAMPLER_TRAIN must be one of {', '.join(_SAMPLERS)}, not '{name}'")
    grouped = cfg.DATALOADER.ASPECT_RATIO_GROUPING
    upright = np.array([r["height"] > r["width"] for records in datasets for r in records])
    return TrainingOrder(
        [len(records) for records in datasets],
        cfg.SOLVER.IMS_PER_BATCH,
        cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed(),
        ratios=cfg.DATASETS.TRAIN_RATIOS or None,
        groups=upright if grouped else None,
        subset=1.0 if name == "TrainingSampler" else cfg.DATALOADER.RANDOM_SUBSET_RATIO,
    )


def build_train_loader(cfg: CfgNode) -> Any:
    """An endless loader of batches (lists) of training clips.

    Datasets are mixed by DATASETS.TRAIN_RATIOS. The seed is SEED, or a random one, the same in all processes,
    if that is negative.

    Raises:
        InputError: if datasets, ratios, sampler or batch size cannot be used.
    """
    datasets = training_datasets(cfg)
    mapper = ClipDatasetMapper(YTVISDatasetMapper(cfg, is_train=True), CocoClipDatasetMapper(cfg))
    return build_detection_train_loader(
        TrainingClips([record for records in datasets for record in records], mapper),
        mapper=None,
        sampler=_build_order(cfg, datasets),
        total_batch_size=cfg.SOLVER.IMS_PER_BATCH,
        aspect_ratio_grouping=False,  # the order does it, so that it is the same for any number of processes
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )


def training_order(loader: Any) -> TrainingOrder:
    """The order that a loader of :func:`build_train_loader` goes by."""
    return loader.dataset.sampler


def build_test_loader(cfg: CfgNode, dataset_name: str) -> Any:
    """A loader of whole videos, one at a time.

    Raises:
        InputError: if the dataset cannot be read, or the model has another number of classes.
    """
    videos = DatasetCatalog.get(dataset_name)
    found, wanted = len(MetadataCatalog.get(dataset_name).thing_classes), cfg.MODEL.SeqFormer.NUM_CLASSES
    if found != wanted:
        raise InputError(
            f"dataset '{dataset_name}' has {found} classes, the model {wanted}: "
            "set MODEL.SeqFormer.NUM_CLASSES, or take weights that know these classes"
        )
    return build_detection_test_loader(
        dataset=videos,
        mapper=YTVISDatasetMapper(cfg, is_train=False),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )
