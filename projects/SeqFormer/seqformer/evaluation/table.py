"""Formats the metrics of an evaluation as text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tabulate import tabulate

from seqformer.evaluation.summary import FAMILIES, Evaluation

__all__ = ["format_evaluation"]


def format_evaluation(evaluation: Evaluation) -> str:
    """Formats the metrics as tables: AP, categories with their averages, and videos; "-" for missing values.

    The last line has the ID switches.
    """
    parts = []
    names = [name for name in evaluation.names if name not in FAMILIES["AP"]]
    if "AP" in evaluation.families:
        names.insert(0, "AP")
        overall = [_text(evaluation.class_averaged, name) for name in FAMILIES["AP"]]
        parts.append(tabulate([overall], FAMILIES["AP"], "pipe", stralign="right"))
    rows = [(evaluation.category_names[id_], figures) for id_, figures in evaluation.categories.items()]
    if evaluation.detection_averaged:
        rows.append(("class-averaged", evaluation.class_averaged))
        rows.append(("detection-averaged", evaluation.detection_averaged))
    parts.append(_table("category", rows, names))
    if evaluation.videos:
        labels = [
            (evaluation.video_names[id_] or f"video {id_}", figures)
            for id_, figures in evaluation.videos.items()
        ]
        parts.append(_table("video", labels, names))
    if evaluation.detection_averaged and evaluation.unused_categories:
        parts.append(
            f"{evaluation.unused_categories} of {len(evaluation.categories)} categories have neither ground "
            "truth nor results. As in TrackEval, they count as 0 in the class average."
        )
    switches = evaluation.id_switches
    threshold = evaluation.score_threshold
    parts.append(
        f"ID switches: {switches.switches}; {switches.covered} of {switches.instances} instances covered "
        + (f"by a result with a score of at least {threshold:g}" if threshold else "by a result")
    )
    return "\n\n".join(parts)


def _table(label: str, rows: Sequence[tuple[str, Mapping[str, float]]], names: Sequence[str]) -> str:
    return tabulate(
        [[name, *(_text(figures, metric) for metric in names)] for name, figures in rows],
        (label, *names),
        "pipe",
        colalign=("left", *["right"] * len(names)),
        disable_numparse=True,
    )


def _text(figures: Mapping[str, float], name: str) -> str:
    value = figures.get(name, math.nan)
    if math.isnan(value):
        return "-"
    return f"{value:.0f}" if name == "IDSW" else f"{value:.2f}"
