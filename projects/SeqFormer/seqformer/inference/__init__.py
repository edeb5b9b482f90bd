"""From queries to results: whole videos, clips, predictors."""

from seqformer.inference.predictor import VideoPredictor

__all__ = ["VideoPredictor"]
