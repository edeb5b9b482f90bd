"""Builds a dataset of pedestrians in YouTube-VIS format from a video of a fixed camera.

    python tools/make_pedestrians.py --video vtest.avi --output datasets/pedestrians

People who do not touch others are cut out by background subtraction and tracked. They are composed into
videos, over the empty street or over real frames. The training split uses only frames before --split-frame,
the validation split only the others. vtest.avi is part of OpenCV's documentation (on Debian:
``apt-get download opencv-doc && dpkg -x opencv-doc_*.deb opencv-doc``).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from seqformer.cli.program import program
from seqformer.data.pedestrians.build import make_pedestrians
from seqformer.errors import name_flags

__all__ = ["add_arguments", "main", "run"]

_FLAGS = {"split_frame": "--split-frame"}


def _size(text: str) -> tuple[int, int]:
    try:
        height, width = (int(side) for side in text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not HEIGHTxWIDTH") from None
    return height, width


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--video", type=Path, required=True, metavar="FILE", help="a video of a fixed camera")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="folder to create")
    parser.add_argument(
        "--split-frame",
        type=int,
        default=500,
        metavar="FRAME",
        help="first frame of the validation split (default: %(default)s)",
    )
    parser.add_argument(
        "--train-videos", type=int, default=600, metavar="N", help="training videos (default: %(default)s)"
    )
    parser.add_argument(
        "--val-videos", type=int, default=40, metavar="N", help="validation videos (default: %(default)s)"
    )
    parser.add_argument(
        "--frames", type=int, default=20, metavar="N", help="frames per video (default: %(default)s)"
    )
    parser.add_argument(
        "--size",
        type=_size,
        default=(432, 576),
        metavar="HEIGHTxWIDTH",
        help="size of the frames in pixels (default: 432x576)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="random seed of the dataset (default: %(default)s)"
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=2,
        metavar="N",
        help="number of worker processes (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    """Builds the dataset.

    Raises:
        InputError: if the video cannot be used, or the folder exists or cannot be written.
    """
    with name_flags(_FLAGS):
        make_pedestrians(
            args.video,
            args.output,
            split_frame=args.split_frame,
            train_videos=args.train_videos,
            val_videos=args.val_videos,
            num_frames=args.frames,
            size=args.size,
            seed=args.seed,
            processes=args.processes,
        )


main = program(add_arguments, run, __doc__)
