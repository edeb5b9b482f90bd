"""Videos in and out, and pictures of what was found."""

from seqformer.visualization.live import LiveReader, is_address
from seqformer.visualization.reader import (
    FrameSource,
    ImageSequenceReader,
    VideoReader,
    open_source,
)
from seqformer.visualization.visualizer import draw_instances, instance_color
from seqformer.visualization.writer import (
    FrameFolderWriter,
    FrameWriter,
    GrowingFolderWriter,
    GrowingVideoWriter,
    VideoWriter,
    open_writer,
)

__all__ = [
    "FrameFolderWriter",
    "FrameSource",
    "FrameWriter",
    "GrowingFolderWriter",
    "GrowingVideoWriter",
    "ImageSequenceReader",
    "LiveReader",
    "VideoReader",
    "VideoWriter",
    "draw_instances",
    "instance_color",
    "is_address",
    "open_source",
    "open_writer",
]
