"""From queries to results: whole videos, clips, predictors, and a look inside."""

from seqformer.inference.predictor import TrackCollector, VideoPredictor
from seqformer.inference.streaming import StreamingPredictor
from seqformer.inference.tracing import Trace, trace

__all__ = ["StreamingPredictor", "Trace", "TrackCollector", "VideoPredictor", "trace"]
