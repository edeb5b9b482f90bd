"""Converts a results.json to formats of annotation tools and other benchmarks.

    seqformer convert results davis --dataset val.json --results results.json --output masks/
    seqformer convert results mots --dataset val.json --results results.json --output mots/
    seqformer convert results coco --dataset val.json --results results.json --output frames.json

davis: palette PNGs in Annotations/, one folder per video, and meta.json with the categories;
`seqformer convert dataset davis` reads them.
mots: one text file per video.
coco: one file with a mask, score and track_id for every instance and frame.
In davis and mots, the instance with the higher score is in front where instances overlap.

The dataset is the YouTube-VIS JSON of the results' videos; annotations are not needed. For unlabelled frames,
`seqformer convert dataset frames` creates it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from seqformer.cli.program import program
from seqformer.errors import name_flags
from seqformer.formats.coco import write_coco
from seqformer.formats.davis import write_davis
from seqformer.formats.labelled import read_labelled
from seqformer.formats.mots import write_mots

__all__ = ["add_arguments", "main", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("format", choices=("davis", "mots", "coco"), help="format to write")
    parser.add_argument(
        "--dataset", type=Path, required=True, metavar="JSON", help="YouTube-VIS JSON with the videos"
    )
    parser.add_argument("--results", type=Path, required=True, metavar="JSON", help="results.json")
    parser.add_argument("--output", type=Path, required=True, help="a new folder, or the JSON file for coco")
    parser.add_argument(
        "--score-threshold",
        type=float,
        default=0.4,
        metavar="SCORE",
        help="drop results with lower scores (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    with name_flags({"score_threshold": "--score-threshold"}):
        names, videos = read_labelled(args.dataset, args.results, args.score_threshold)
        if args.format == "coco":
            write_coco(videos, names, args.output)
        elif args.format == "davis":
            write_davis(videos, names, args.output)
        else:
            write_mots(videos, args.output)
    print(f"{args.output}: {sum(len(video.instances) for video in videos)} instances")


main = program(add_arguments, run, __doc__)
