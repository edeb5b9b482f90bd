"""From queries to results: whole videos, clips, predictors, and a look inside."""

from seqformer.inference.clip_traces import ClipTracer
from seqformer.inference.predictor import VideoPredictor
from seqformer.inference.streaming import StreamingPredictor
from seqformer.inference.tracing import Trace, trace

__all__ = ["ClipTracer", "StreamingPredictor", "Trace", "VideoPredictor", "trace"]
