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

from seqformer.data.batch import Batch
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
    """Returns a list of dataset dicts for each dataset in DATASETS.TRAIN.

    Videos without an instance are dropped, and so are images without one or with more than 25.

    Raises:
        InputError: if a dataset cannot be read or has nothing to train on, datasets have different classes,
            or the model has too few classes.
    """
    names = cfg.DATASETS.TRAIN
    if not names:
        raise InputError("DATASETS.TRAIN is empty")
    all_records = [_read(name) for name in names]
    classes = {name: MetadataCatalog.get(name).thing_classes for name in names}
    for name in names[1:]:
        if classes[name] != classes[names[0]]:
            raise InputError(f"datasets '{names[0]}' and '{name}' have different classes")
    if len(classes[names[0]]) > cfg.MODEL.SeqFormer.NUM_CLASSES:
        raise InputError(
            f"dataset '{names[0]}' has {len(classes[names[0]])} classes, but the model has "
            f"{cfg.MODEL.SeqFormer.NUM_CLASSES}: set MODEL.SeqFormer.NUM_CLASSES"
        )
    logger = logging.getLogger(__name__)
    datasets = []
    for name, records in zip(names, all_records, strict=True):
        usable = [record for record in records if _usable(record)]
        if not usable:
            raise InputError(f"dataset '{name}' has no video or image with an instance")
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
    except (OSError, ValueError, KeyError, AssertionError) as error:  # from Detectron2's own readers
        reason = " ".join(str(error).split())
        raise InputError(f"dataset '{name}' cannot be read: {type(error).__name__}: {reason}") from error
    if any("annotations" not in record for record in records):
        raise InputError(f"dataset '{name}' has no annotations, so it cannot be used for training")
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
    """Builds an endless loader of batches (:class:`Batch`) of training clips.

    DATASETS.TRAIN_RATIOS sets the mix of datasets. The seed is SEED; if that is negative, all processes share
    a random one.

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
        aspect_ratio_grouping=False,  # the order groups them, alike for any number of processes
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=Batch,
    )


def training_order(loader: Any) -> TrainingOrder:
    """Returns the order of samples of a loader from :func:`build_train_loader`."""
    return loader.dataset.sampler


def build_test_loader(cfg: CfgNode, dataset_name: str) -> Any:
    """Builds a loader of whole videos, one at a time.

    Raises:
        InputError: if the dataset cannot be read, or the model has another number of classes.
    """
    videos = DatasetCatalog.get(dataset_name)
    num_classes = len(MetadataCatalog.get(dataset_name).thing_classes)
    if num_classes != cfg.MODEL.SeqFormer.NUM_CLASSES:
        raise InputError(
            f"dataset '{dataset_name}' has {num_classes} classes, but the model has "
            f"{cfg.MODEL.SeqFormer.NUM_CLASSES}: set MODEL.SeqFormer.NUM_CLASSES, or use other weights"
        )
    return build_detection_test_loader(
        dataset=videos,
        mapper=YTVISDatasetMapper(cfg, is_train=False),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )
