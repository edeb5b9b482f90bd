"""Clip matching: combines the instances of clips into tracklets of a video."""

from seqformer.tracking.clips import ClipInstances, FinalFrames, fits_one_clip, plan_clips
from seqformer.tracking.motion import assign_by_motion
from seqformer.tracking.options import MotionOptions
from seqformer.tracking.overlap import assign_by_overlap, soft_iou
from seqformer.tracking.store import InstanceStore
from seqformer.tracking.tracklets import TrackletBuilder

__all__ = [
    "ClipInstances",
    "FinalFrames",
    "InstanceStore",
    "MotionOptions",
    "TrackletBuilder",
    "assign_by_motion",
    "assign_by_overlap",
    "fits_one_clip",
    "plan_clips",
    "soft_iou",
]
