"""Computes AP and ID switches of a results.json.

    seqformer evaluate val.json results.json

Both files are in YouTube-VIS format.
"""

from __future__ import annotations

import argparse

from seqformer.cli.program import program
from seqformer.evaluation.id_switches import SCORE_THRESHOLD, id_switches
from seqformer.evaluation.table import format_id_switches, format_table
from seqformer.evaluation.tracklets import read_tracklets
from seqformer.evaluation.ytvis import average_precision

__all__ = ["add_arguments", "main", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "ground_truth", metavar="GROUND_TRUTH", help="annotations in YouTube-VIS format (JSON)"
    )
    parser.add_argument("results", metavar="RESULTS", help="results.json")
    parser.add_argument(
        "--id-switch-threshold",
        type=float,
        default=SCORE_THRESHOLD,
        metavar="SCORE",
        help="minimum score of results when counting ID switches (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    """Prints AP and ID switches.

    Raises:
        InputError: if a file cannot be read or is malformed.
    """
    tracklets = read_tracklets(args.ground_truth, args.results)
    switches = id_switches(tracklets, args.id_switch_threshold)
    print(format_table(average_precision(tracklets)))
    print("\n" + format_id_switches(switches, args.id_switch_threshold))


main = program(add_arguments, run, __doc__, prog="python -m seqformer.evaluation")
