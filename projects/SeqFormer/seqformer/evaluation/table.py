"""Formats the metrics of an evaluation as text."""

from __future__ import annotations

import math
from typing import Any

from tabulate import tabulate

from seqformer.evaluation.id_switches import SCORE_THRESHOLD, IDSwitches
from seqformer.evaluation.ytvis import METRICS

__all__ = ["format_id_switches", "format_table"]


def format_table(figures: dict[str, Any]) -> str:
    """Formats the protocol's metrics and AP by category as two tables, with "-" for missing values.

    Args:
        figures: the metrics from :func:`seqformer.evaluation.ytvis.evaluate_ytvis`.
    """
    overall = tabulate([[_text(figures[name]) for name in METRICS]], METRICS, "pipe", stralign="right")
    rows = [[name, _text(value)] for name, value in figures["per_category"].items()]
    return overall + "\n\n" + tabulate(rows, ("category", "AP"), "pipe", colalign=("left", "right"))


def format_id_switches(switches: IDSwitches, score_threshold: float = SCORE_THRESHOLD) -> str:
    """Formats the result of :func:`seqformer.evaluation.count_id_switches` as one line."""
    return (
        f"ID switches: {switches.switches}; {switches.covered} of {switches.instances} instances covered "
        f"by a result with a score of at least {score_threshold:g}"
    )


def _text(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"
