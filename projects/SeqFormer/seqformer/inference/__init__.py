"""From queries to results: whole videos, clips, predictors, and a look inside."""

from seqformer.inference.predictor import VideoPredictor
from seqformer.inference.tracing import Trace, trace

__all__ = ["Trace", "VideoPredictor", "trace"]
