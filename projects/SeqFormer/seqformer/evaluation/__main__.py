"""``python -m seqformer.evaluation GROUND_TRUTH RESULTS``: AP of a results.json."""

from __future__ import annotations

import argparse

from seqformer.data.ytvis import read_json
from seqformer.errors import exit_on_bad_input
from seqformer.evaluation.table import format_table
from seqformer.evaluation.ytvis import evaluate_ytvis


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m seqformer.evaluation", description="AP by the YouTube-VIS protocol, in percent."
    )
    parser.add_argument("ground_truth", help="annotations in YouTube-VIS format (JSON)")
    parser.add_argument("results", help="results.json")
    args = parser.parse_args()
    with exit_on_bad_input():
        figures = evaluate_ytvis(read_json(args.ground_truth), read_json(args.results))
        print(format_table(figures))


if __name__ == "__main__":
    main()
