"""``python -m seqformer.evaluation GROUND_TRUTH RESULTS``: AP and identity errors of a results.json."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from seqformer.errors import exit_on_bad_input
from seqformer.evaluation.identity import SCORE_THRESHOLD, identity_errors
from seqformer.evaluation.table import format_identity_errors, format_table
from seqformer.evaluation.tracks import read_tracks
from seqformer.evaluation.ytvis import average_precision


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m seqformer.evaluation", description="AP by the YouTube-VIS protocol, in percent."
    )
    parser.add_argument("ground_truth", help="annotations in YouTube-VIS format (JSON)")
    parser.add_argument("results", help="results.json")
    parser.add_argument(
        "--identity-threshold",
        type=float,
        default=SCORE_THRESHOLD,
        metavar="SCORE",
        help="results below do not count for identity errors (default: %(default)s)",
    )
    args = parser.parse_args(arguments)
    with exit_on_bad_input():
        tracks = read_tracks(args.ground_truth, args.results)
        identity = identity_errors(tracks, args.identity_threshold)
        print(format_table(average_precision(tracks)))
        print("\n" + format_identity_errors(identity, args.identity_threshold))


if __name__ == "__main__":
    main()
