"""Datasets in YouTube-VIS format, clips and their augmentation."""

from seqformer.data.build import build_test_loader, build_train_loader, training_order
from seqformer.data.clip_sampler import ClipSampler
from seqformer.data.mapper import YTVISDatasetMapper
from seqformer.data.pseudo_clips import CocoClipDatasetMapper
from seqformer.data.ytvis import load_ytvis_json, register_ytvis_instances, resolve_datasets

__all__ = [
    "ClipSampler",
    "CocoClipDatasetMapper",
    "YTVISDatasetMapper",
    "build_test_loader",
    "build_train_loader",
    "load_ytvis_json",
    "register_ytvis_instances",
    "resolve_datasets",
    "training_order",
]
