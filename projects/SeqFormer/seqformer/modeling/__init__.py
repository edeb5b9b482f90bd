"""The network and its losses. Backbones are registered with Detectron2."""

from seqformer.modeling.backbone import SwinBackbone, TimmBackbone
from seqformer.modeling.criterion import Criterion
from seqformer.modeling.matcher import HungarianMatcher, Matches, Predictions, Targets
from seqformer.modeling.network import EncodedFrames, QueryNetwork, SeqFormerNetwork, Transformer
from seqformer.modeling.precision import PRECISIONS, reduce_precision

__all__ = [
    "PRECISIONS",
    "Criterion",
    "EncodedFrames",
    "HungarianMatcher",
    "Matches",
    "Predictions",
    "QueryNetwork",
    "SeqFormerNetwork",
    "SwinBackbone",
    "Targets",
    "TimmBackbone",
    "Transformer",
    "reduce_precision",
]
