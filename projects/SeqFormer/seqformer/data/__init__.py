"""Datasets in YouTube-VIS format, clips and their augmentation.

Importing this package registers the published datasets with Detectron2 without reading any file.
"""

from seqformer.data.build import build_test_loader, build_train_loader, training_order
from seqformer.data.clip_sampler import ClipSampler
from seqformer.data.coco import load_coco_as_ytvis
from seqformer.data.datasets import builtin_classes, register_builtin_datasets, resolve_datasets
from seqformer.data.mapper import YTVISDatasetMapper
from seqformer.data.measure import DatasetFigures, measure_dataset, select_videos, split_videos
from seqformer.data.pseudo_clips import CocoClipDatasetMapper
from seqformer.data.ytvis import load_ytvis_json, register_ytvis_instances

register_builtin_datasets()

__all__ = [
    "ClipSampler",
    "CocoClipDatasetMapper",
    "DatasetFigures",
    "YTVISDatasetMapper",
    "builtin_classes",
    "build_test_loader",
    "build_train_loader",
    "load_coco_as_ytvis",
    "load_ytvis_json",
    "measure_dataset",
    "register_builtin_datasets",
    "register_ytvis_instances",
    "resolve_datasets",
    "select_videos",
    "split_videos",
    "training_order",
]
