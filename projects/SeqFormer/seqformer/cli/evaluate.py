"""Computes AP, HOTA, IDF1 and other metrics of a results.json.

    seqformer evaluate val.json results.json
    seqformer evaluate val.json results.json --metrics AP HOTA Identity --per-video --json metrics.json

Both files are in YouTube-VIS format.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from seqformer.cli.program import program
from seqformer.errors import InputError
from seqformer.evaluation.summary import FAMILIES, evaluate
from seqformer.evaluation.table import format_evaluation
from seqformer.formats.files import replaced_when_complete, write_json

__all__ = ["add_arguments", "main", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "ground_truth", metavar="GROUND_TRUTH", help="annotations in YouTube-VIS format (JSON)"
    )
    parser.add_argument("results", metavar="RESULTS", help="results.json")
    parser.add_argument(
        "--metrics",
        nargs="+",
        choices=(*FAMILIES, "all"),
        default=["AP"],
        metavar="NAME",
        help="what to compute in addition to ID switches: AP, HOTA (HOTA, DetA, AssA), CLEAR (MOTA, IDSW), "
        "Identity (IDF1, IDP, IDR), or all (default: AP)",
    )
    parser.add_argument(
        "--score-threshold",
        "--id-switch-threshold",
        type=float,
        default=0.0,
        metavar="SCORE",
        help="leave results with lower scores out of all metrics but AP; 0 keeps all, as TrackEval does "
        "(default: %(default)g)",
    )
    parser.add_argument("--per-video", action="store_true", help="add the metrics of every video")
    parser.add_argument("--json", metavar="FILE", help="save the metrics as JSON")
    parser.add_argument("--csv", metavar="FILE", help="save the metrics as one table")


def run(args: argparse.Namespace) -> None:
    """Prints the metrics and saves them.

    Raises:
        InputError: if a file cannot be read or written, or is malformed.
    """
    inputs = {Path(path).resolve() for path in (args.ground_truth, args.results)}
    outputs = [Path(path).resolve() for path in (args.json, args.csv) if path]
    if inputs & set(outputs) or len(set(outputs)) < len(outputs):
        raise InputError("--json and --csv must name new files, not the input or each other")
    families = tuple(FAMILIES) if "all" in args.metrics else args.metrics
    evaluation = evaluate(args.ground_truth, args.results, families, args.score_threshold, args.per_video)
    print(format_evaluation(evaluation))
    if args.json:
        write_json(args.json, evaluation.to_json())
    if args.csv:
        with replaced_when_complete(args.csv) as part:
            part.write_text(evaluation.to_csv(), encoding="utf-8")


main = program(add_arguments, run, __doc__, prog="python -m seqformer.evaluation")
