"""Makes YouTube-VIS JSON from other annotations of videos.

    python tools/convert_dataset.py davis --annotations Annotations --frames JPEGImages --output davis.json
    python tools/convert_dataset.py mots --annotations instances_txt --frames image_02 --output mots.json
    python tools/convert_dataset.py cvat --annotations task.xml --frames frames --output task.json
    python tools/convert_dataset.py frames --frames frames --categories person car --output unlabelled.json

davis: PNGs whose palette indices or grey levels are the objects, a folder a video. --meta takes YouTube-VOS's
meta.json for categories; without it all is "object".
mots: KITTI-MOTS or MOTSChallenge, text or 16-bit PNGs (class * 1000 + number). Regions to be ignored (class
10) become crowd annotations of every category, or are dropped with --ignore-regions drop.
cvat: "CVAT for video 1.1". Polygons and masks; boxes are refused, or filled with --boxes fill.
frames: a folder of frames a video, without annotations, for a model to find instances in.

Frames stay where they are; the JSON's file names are relative to --frames. Check the result with
tools/check_dataset.py, and train on it as ytvis:JSON:FRAMES. datasets/README.md shows the folders.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seqformer.errors import InputError, exit_on_bad_input
from seqformer.formats.builder import DatasetBuilder
from seqformer.formats.cvat import read_cvat
from seqformer.formats.davis import read_davis
from seqformer.formats.files import write_json
from seqformer.formats.frames import list_pictures, subfolders
from seqformer.formats.mots import MOTS_CLASSES, read_mots


def convert(args: argparse.Namespace) -> dict[str, Any]:
    """The dataset that the command line asks for, as the content of a YouTube-VIS JSON.

    Raises:
        InputError: if the annotations or frames cannot be used.
    """
    if not args.frames.is_dir():
        raise InputError(f"no folder '{args.frames}'")
    if args.format == "davis":
        return read_davis(args.annotations, args.frames, args.meta, args.void)
    if args.format == "mots":
        return read_mots(
            args.annotations, args.frames, dict(args.classes), keep_ignored=args.ignore_regions == "crowd"
        )
    if args.format == "cvat":
        return read_cvat(args.annotations, args.frames, fill_boxes=args.boxes == "fill")
    builder = DatasetBuilder(args.frames, dict(enumerate(dict.fromkeys(args.categories), start=1)))
    for folder in subfolders(args.frames):
        pictures = list(list_pictures(folder).values())
        if not pictures:
            raise InputError(f"'{folder}': no frames")
        builder.add_video(pictures)
    return {key: value for key, value in builder.to_json().items() if key != "annotations"}


def parse_class(text: str) -> tuple[int, str]:
    """ID=NAME."""
    id_, _, name = text.partition("=")
    if not id_.isdecimal() or not name:
        raise argparse.ArgumentTypeError(f"'{text}' is not ID=NAME")
    return int(id_), name


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    formats = parser.add_subparsers(dest="format", required=True, metavar="FORMAT")
    commands = {name: formats.add_parser(name) for name in ("davis", "mots", "cvat", "frames")}
    davis, mots, cvat, frames = commands.values()
    for command, what in (
        (davis, "folder with a folder of PNGs a video"),
        (mots, "folder with NAME.txt, NAME/gt/gt.txt or a folder of PNGs a sequence"),
    ):
        command.add_argument("--annotations", type=Path, required=True, help=what)
    cvat.add_argument("--annotations", type=Path, nargs="+", required=True, metavar="XML", help="one a task")
    for command in commands.values():
        command.add_argument("--frames", type=Path, required=True, help="folder of the frames")
        command.add_argument("--output", type=Path, required=True, help="the JSON to write")
    davis.add_argument("--meta", type=Path, help="YouTube-VOS's meta.json, for categories")
    davis.add_argument("--void", type=int, metavar="ID", help="pixels of this id belong to nothing")
    mots.add_argument(
        "--classes",
        type=parse_class,
        nargs="+",
        default=list(MOTS_CLASSES.items()),
        metavar="ID=NAME",
        help="default: " + " ".join(f"{id_}={name}" for id_, name in MOTS_CLASSES.items()),
    )
    mots.add_argument("--ignore-regions", choices=("crowd", "drop"), default="crowd")
    cvat.add_argument("--boxes", choices=("refuse", "fill"), default="refuse")
    frames.add_argument("--categories", nargs="+", required=True, metavar="NAME", help="of the model")
    args = parser.parse_args(argv)
    with exit_on_bad_input():
        dataset = convert(args)
        write_json(args.output, dataset)
    counts = ", ".join(f"{len(entries)} {key}" for key, entries in dataset.items())
    print(f"{args.output}: {counts}")


if __name__ == "__main__":
    main()
