"""Lists the trained models that --model and VideoPredictor.from_pretrained take by name.

    seqformer models

AP is that of YouTube-VIS 2019 val; the figures are the authors', not measured here. Released weights are
downloaded when they are first used.
"""

from __future__ import annotations

import argparse

from seqformer.cli.program import program
from seqformer.model_zoo import MODELS

__all__ = ["add_arguments", "main", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds nothing: the list has no options."""


def run(args: argparse.Namespace) -> None:
    """Prints the list."""
    rows: list[tuple[str, ...]] = [
        ("name", "model, training data", "classes", "AP", "AP50", "AP75", "weights")
    ]
    for model in MODELS.values():
        figures = ("" if ap is None else f"{ap:.1f}" for ap in (model.ap, model.ap50, model.ap75))
        weights = "shipped" if model.file else model.address
        rows.append((model.name, model.description, str(model.num_classes), *figures, weights))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    print("\nAP, AP50, AP75: YouTube-VIS 2019 val, percent; the authors' figures, not measured here")


main = program(add_arguments, run, __doc__, prog="seqformer models")
