"""AP and identity errors of tracked instances, Detectron2's evaluator, and results.json."""

from seqformer.evaluation.evaluator import YTVISEvaluator
from seqformer.evaluation.identity import IdentityErrors, count_identity_errors
from seqformer.evaluation.ytvis import evaluate_ytvis
from seqformer.formats.results import write_results, write_submission

__all__ = [
    "IdentityErrors",
    "YTVISEvaluator",
    "count_identity_errors",
    "evaluate_ytvis",
    "write_results",
    "write_submission",
]
