"""Reads frames from videos, pictures and cameras, and writes them to videos and pictures."""

from seqformer.video.ahead import Ahead
from seqformer.video.dataset_video import DatasetVideo, open_dataset_video
from seqformer.video.display import FrameTime
from seqformer.video.folders import FrameFolderWriter, GrowingFolderWriter
from seqformer.video.live import LiveReader, is_address
from seqformer.video.sinks import (
    FrameWriter,
    GrowingVideoWriter,
    VideoWriter,
    open_writer,
    read_origin,
)
from seqformer.video.sources import (
    FrameSource,
    ImageSequenceReader,
    Sound,
    VideoReader,
    open_source,
    origin_of,
)

__all__ = [
    "Ahead",
    "DatasetVideo",
    "FrameFolderWriter",
    "FrameSource",
    "FrameTime",
    "FrameWriter",
    "GrowingFolderWriter",
    "GrowingVideoWriter",
    "ImageSequenceReader",
    "LiveReader",
    "Sound",
    "VideoReader",
    "VideoWriter",
    "is_address",
    "open_dataset_video",
    "open_source",
    "open_writer",
    "origin_of",
    "read_origin",
]
