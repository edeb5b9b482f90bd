"""Metrics of tracklets (AP, HOTA, IDF1, ID switches ...) and an evaluator for Detectron2.

The metrics need neither PyTorch nor Detectron2; the evaluator is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seqformer.evaluation.summary import Evaluation, evaluate
from seqformer.evaluation.tracking_metrics import IDSwitches, count_id_switches
from seqformer.evaluation.ytvis import evaluate_ytvis

if TYPE_CHECKING:
    from seqformer.evaluation.evaluator import YTVISEvaluator

__all__ = [
    "Evaluation",
    "IDSwitches",
    "YTVISEvaluator",
    "count_id_switches",
    "evaluate",
    "evaluate_ytvis",
]


def __getattr__(name: str) -> Any:
    if name != "YTVISEvaluator":
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from seqformer.evaluation.evaluator import YTVISEvaluator

    return YTVISEvaluator
