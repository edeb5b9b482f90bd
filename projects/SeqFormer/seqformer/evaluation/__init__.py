"""AP of tracked instances, Detectron2's evaluator, and results.json."""

from seqformer.evaluation.evaluator import YTVISEvaluator
from seqformer.evaluation.results import tracklets_to_results, write_results
from seqformer.evaluation.ytvis import evaluate_ytvis

__all__ = ["YTVISEvaluator", "evaluate_ytvis", "tracklets_to_results", "write_results"]
