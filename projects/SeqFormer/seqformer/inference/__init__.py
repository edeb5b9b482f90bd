"""Runs the network on videos: whole videos, clips, predictors, and traces of the decoder."""

from seqformer.inference.clip_traces import ClipTracer
from seqformer.inference.prediction import VideoPrediction
from seqformer.inference.predictor import VideoPredictor
from seqformer.inference.setup import classes, model_config
from seqformer.inference.streaming import StreamingPredictor
from seqformer.inference.tracing import trace
from seqformer.structures import Trace

__all__ = [
    "ClipTracer",
    "StreamingPredictor",
    "Trace",
    "VideoPrediction",
    "VideoPredictor",
    "classes",
    "model_config",
    "trace",
]
