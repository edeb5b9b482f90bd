"""Metrics of tracklets (AP, ID switches) and an evaluator for Detectron2."""

from seqformer.evaluation.evaluator import YTVISEvaluator
from seqformer.evaluation.id_switches import IDSwitches, count_id_switches
from seqformer.evaluation.ytvis import evaluate_ytvis
from seqformer.formats.results import write_results, write_submission

__all__ = [
    "IDSwitches",
    "YTVISEvaluator",
    "count_id_switches",
    "evaluate_ytvis",
    "write_results",
    "write_submission",
]
