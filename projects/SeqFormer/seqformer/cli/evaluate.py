"""``python -m seqformer.evaluation GROUND_TRUTH RESULTS``: AP and identity errors of a results.json."""

from __future__ import annotations

import argparse

from seqformer.cli.program import program
from seqformer.evaluation.identity import SCORE_THRESHOLD, identity_errors
from seqformer.evaluation.table import format_identity_errors, format_table
from seqformer.evaluation.tracks import read_tracks
from seqformer.evaluation.ytvis import average_precision

__all__ = ["add_arguments", "main", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "ground_truth", metavar="GROUND_TRUTH", help="annotations in YouTube-VIS format (JSON)"
    )
    parser.add_argument("results", metavar="RESULTS", help="results.json")
    parser.add_argument(
        "--identity-threshold",
        type=float,
        default=SCORE_THRESHOLD,
        metavar="SCORE",
        help="ignore results with a lower score when counting identity errors (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    """Prints AP and identity errors.

    Raises:
        InputError: if a file cannot be read or is malformed.
    """
    tracks = read_tracks(args.ground_truth, args.results)
    identity = identity_errors(tracks, args.identity_threshold)
    print(format_table(average_precision(tracks)))
    print("\n" + format_identity_errors(identity, args.identity_threshold))


main = program(add_arguments, run, __doc__, prog="python -m seqformer.evaluation")
