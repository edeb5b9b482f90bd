"""Videos in and out, and pictures of what was found."""

from seqformer.visualization.reader import FrameSource, ImageSequenceReader, VideoReader, open_source
from seqformer.visualization.visualizer import draw_instances, instance_color
from seqformer.visualization.writer import FrameFolderWriter, FrameWriter, VideoWriter, open_writer

__all__ = [
    "FrameFolderWriter",
    "FrameSource",
    "FrameWriter",
    "ImageSequenceReader",
    "VideoReader",
    "VideoWriter",
    "draw_instances",
    "instance_color",
    "open_source",
    "open_writer",
]
