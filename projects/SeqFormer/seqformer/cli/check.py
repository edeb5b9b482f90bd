"""Checks a dataset in YouTube-VIS format and lists all problems.

    seqformer check train.json train/JPEGImages [--decode]

Prints one line per problem, with file, video, annotation and frame. Exit code 0: no problems; 1: problems;
2: the JSON cannot be read.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from tqdm import tqdm

from seqformer.cli.program import add_outside_argument, program
from seqformer.errors import one_line
from seqformer.formats.check import check_dataset
from seqformer.formats.ytvis import allow_outside

__all__ = ["add_arguments", "main", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("json", type=Path, help="annotations in YouTube-VIS format")
    parser.add_argument("frames", type=Path, help="folder that file names in the JSON are relative to")
    parser.add_argument("--decode", action="store_true", help="decode whole frames, to find truncated files")
    add_outside_argument(parser)


def run(args: argparse.Namespace) -> int:
    progress = partial(tqdm, desc="frames", unit="video", disable=None)
    with allow_outside(args.allow_outside):
        dataset, problems = check_dataset(args.json, args.frames, decode=args.decode, progress=progress)
    for problem in problems:
        print(one_line(problem))
    content = (
        f"{len(dataset.videos)} videos, {sum(video.length for video in dataset.videos.values())} frames, "
        f"{len(dataset.annotations or ())} annotations, {len(dataset.names)} categories"
    )
    print(f"{len(problems) or 'no'} problem{'s' * (len(problems) != 1)}; usable: {content}")
    return 1 if problems else 0


main = program(add_arguments, run, __doc__)
