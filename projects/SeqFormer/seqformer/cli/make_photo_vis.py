"""Builds PhotoVIS, a benchmark of videos composed from photographs in Debian packages.

    apt-get download tuxpaint-stamps-default lomiri-wallpapers-16.04 mate-backgrounds \\
        plasma-workspace-wallpapers
    for file in *.deb; do dpkg -x $file photographs; done
    python tools/make_photo_vis.py --photographs photographs --output datasets/photo_vis

docs/photo-vis.md describes it and its limits.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from seqformer.cli.program import program
from seqformer.data.photo_vis import SPLITS, Material, make_photo_vis

__all__ = ["add_arguments", "main", "run"]

_VIDEOS = {"train": 2000, "val": 100, "hard": 100}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to a parser."""
    parser.add_argument(
        "--photographs", type=Path, required=True, help="folder that the Debian packages were unpacked to"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to create")
    parser.add_argument(
        "--splits",
        nargs="+",
        choices=list(SPLITS),
        default=list(SPLITS),
        help="splits to build (default: all)",
    )
    for split, count in _VIDEOS.items():
        parser.add_argument(
            f"--{split}-videos",
            type=int,
            default=count,
            metavar="N",
            help=f"{split} videos (default: %(default)s)",
        )
    parser.add_argument(
        "--height",
        type=int,
        default=192,
        help="height in pixels; the width is 5/3 of it; published: 192 and 288 (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="random seed; published: 0 (default: %(default)s)"
    )
    parser.add_argument(
        "--processes", type=int, default=2, help="number of worker processes (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    """Builds the benchmark.

    Raises:
        InputError: if photographs are missing or the output exists.
    """
    splits = dict.fromkeys(args.splits)
    material = {
        name: Material(args.photographs, name) for name in {SPLITS[split].material for split in splits}
    }
    videos = {split: getattr(args, f"{split}_videos") for split in splits}
    make_photo_vis(
        material,
        args.output,
        videos,
        height=args.height,
        seed=args.seed,
        processes=args.processes,
        progress=True,
    )


main = program(add_arguments, run, __doc__)
