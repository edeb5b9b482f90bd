"""AP and identity errors of predicted tracklets, and Detectron2's evaluator around them.

The metrics need neither PyTorch nor Detectron2; the evaluator is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seqformer.evaluation.identity import IdentityErrors, count_identity_errors
from seqformer.evaluation.ytvis import evaluate_ytvis

if TYPE_CHECKING:
    from seqformer.evaluation.evaluator import YTVISEvaluator

__all__ = ["IdentityErrors", "YTVISEvaluator", "count_identity_errors", "evaluate_ytvis"]


def __getattr__(name: str) -> Any:
    if name != "YTVISEvaluator":
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from seqformer.evaluation.evaluator import YTVISEvaluator

    return YTVISEvaluator
