"""SeqFormer (Wu et al., ECCV 2022): video instance segmentation on Detectron2.

Importing the package registers the meta-architecture "SeqFormer", its backbones and the published datasets
with Detectron2. OpenCV, PyAV, timm and matplotlib are imported only by functions that need them.

Examples:
    >>> from seqformer import VideoPredictor
    >>> result = VideoPredictor.from_pretrained()("video.mp4")
    >>> [(t.class_name, t.score) for t in result.tracklets]
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from seqformer.version import __version__

if TYPE_CHECKING:
    from seqformer import model_zoo
    from seqformer.config import add_seqformer_config, load_config
    from seqformer.data.ytvis import register_ytvis_instances
    from seqformer.evaluation.ytvis import evaluate_ytvis
    from seqformer.inference.predictor import VideoPredictor
    from seqformer.meta_arch import SeqFormer

__all__ = [
    "SeqFormer",
    "VideoPredictor",
    "__version__",
    "add_seqformer_config",
    "evaluate_ytvis",
    "load_config",
    "model_zoo",
    "register_ytvis_instances",
]

_MODULES = {
    "SeqFormer": "seqformer.meta_arch",
    "VideoPredictor": "seqformer.inference.predictor",
    "add_seqformer_config": "seqformer.config",
    "evaluate_ytvis": "seqformer.evaluation.ytvis",
    "load_config": "seqformer.config",
    "register_ytvis_instances": "seqformer.data.ytvis",
}

_incomplete: ImportError | None = None
try:
    from seqformer.dependencies import import_detectron2

    import_detectron2()
    importlib.import_module("seqformer.meta_arch")
    importlib.import_module("seqformer.data")
except ImportError as error:
    # Formats, metrics and `seqformer env` work without PyTorch and Detectron2, so this is not an error yet.
    # __getattr__ raises it when something else is used.
    _incomplete = error


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'seqformer' has no attribute '{name}'")
    try:
        if name == "model_zoo":
            return importlib.import_module("seqformer.model_zoo")
        return getattr(importlib.import_module(_MODULES[name]), name)
    except ImportError as error:
        raise (_incomplete or error) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
