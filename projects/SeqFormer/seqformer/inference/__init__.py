"""From queries to results: whole videos, clips, predictors."""

from seqformer.inference.predictor import TrackCollector, VideoPredictor
from seqformer.inference.streaming import StreamingPredictor

__all__ = ["StreamingPredictor", "TrackCollector", "VideoPredictor"]
