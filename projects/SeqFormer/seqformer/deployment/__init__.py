"""Models for use without this package: ONNX and PyTorch's exported programs."""

from seqformer.deployment.graphs import ClipDecoder, FrameEncoder
from seqformer.deployment.write import FORMATS, export_model

__all__ = ["FORMATS", "ClipDecoder", "FrameEncoder", "export_model"]
