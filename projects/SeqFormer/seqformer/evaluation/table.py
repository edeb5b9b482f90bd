"""The figures of an evaluation as text."""

from __future__ import annotations

import math
from typing import Any

from tabulate import tabulate

from seqformer.evaluation.identity import SCORE_THRESHOLD, IdentityErrors
from seqformer.evaluation.ytvis import METRICS

__all__ = ["format_identity_errors", "format_table"]


def format_table(figures: dict[str, Any]) -> str:
    """Two tables, of the protocol's figures and of AP by category; "-" where nothing was measured.

    Args:
        figures: what :func:`seqformer.evaluation.ytvis.evaluate_ytvis` returns.
    """
    overall = tabulate([[_text(figures[name]) for name in METRICS]], METRICS, "pipe", stralign="right")
    rows = [[name, _text(value)] for name, value in figures["per_category"].items()]
    return overall + "\n\n" + tabulate(rows, ("category", "AP"), "pipe", colalign=("left", "right"))


def format_identity_errors(identity: IdentityErrors, score_threshold: float = SCORE_THRESHOLD) -> str:
    """One line about :func:`seqformer.evaluation.count_identity_errors`."""
    return (
        f"identity errors: {identity.errors}; {identity.covered} of {identity.instances} instances covered "
        f"by a result with a score of at least {score_threshold:g}"
    )


def _text(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"
