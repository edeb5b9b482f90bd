"""Turns a results.json into what annotation tools and other benchmarks read.

    python tools/convert_results.py davis --dataset val.json --results results.json --output masks/
    python tools/convert_results.py mots --dataset val.json --results results.json --output mots/
    python tools/convert_results.py coco --dataset val.json --results results.json --output frames.json

davis: PNGs with a palette, a folder a video, in Annotations/, and meta.json with the categories: what
tools/convert_dataset.py davis reads. mots: a text file a video. In both, of overlapping instances the one
with the higher score is seen. coco: one file with a mask, score and track_id for every instance and frame.

The dataset is the YouTube-VIS JSON that the results are on; annotations are not needed. For frames that
nobody has annotated, tools/convert_dataset.py frames makes it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from seqformer.errors import exit_on_bad_input
from seqformer.formats.coco import write_coco
from seqformer.formats.davis import write_davis
from seqformer.formats.files import new_folder
from seqformer.formats.mots import write_mots
from seqformer.formats.video_results import read_found


def convert(args: argparse.Namespace) -> int:
    """Writes what the command line asks for; returns the number of instances.

    Raises:
        InputError: if the files cannot be used, or the output exists or cannot be written.
    """
    categories, videos = read_found(args.dataset, args.results, args.score_threshold)
    if args.format == "coco":
        write_coco(videos, categories, args.output)
    else:
        with new_folder(args.output) as folder:
            {"davis": write_davis, "mots": write_mots}[args.format](videos, folder)
    return sum(len(video.instances) for video in videos)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("format", choices=("davis", "mots", "coco"))
    parser.add_argument("--dataset", type=Path, required=True, help="YouTube-VIS JSON with the videos")
    parser.add_argument("--results", type=Path, required=True, help="results.json")
    parser.add_argument("--output", type=Path, required=True, help="a new folder, or the JSON for coco")
    parser.add_argument(
        "--score-threshold", type=float, default=0.4, help="leave out results below (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    with exit_on_bad_input():
        count = convert(args)
    print(f"{args.output}: {count} instances")


if __name__ == "__main__":
    main()
