"""The network and its losses. Backbones are registered with Detectron2."""

from seqformer.modeling.backbone import SwinBackbone, TimmBackbone
from seqformer.modeling.criterion import Criterion, LayerPrediction
from seqformer.modeling.matcher import HungarianMatcher, VideoTargets
from seqformer.modeling.network import EncodedFrames, QueryNetwork, SeqFormerNetwork, Transformer

__all__ = [
    "Criterion",
    "EncodedFrames",
    "HungarianMatcher",
    "LayerPrediction",
    "QueryNetwork",
    "SeqFormerNetwork",
    "SwinBackbone",
    "TimmBackbone",
    "Transformer",
    "VideoTargets",
]
