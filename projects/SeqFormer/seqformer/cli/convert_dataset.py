"""Converts video annotations in other formats to YouTube-VIS JSON.

    seqformer convert dataset davis --annotations Annotations --frames JPEGImages --output davis.json
    seqformer convert dataset mots --annotations instances_txt --frames image_02 --output mots.json
    seqformer convert dataset cvat --annotations task.xml --frames frames --output task.json
    seqformer convert dataset frames --frames frames --categories person car --output unlabelled.json

davis: one folder of PNGs per video; palette indices or grey levels are object ids. --meta takes YouTube-VOS's
meta.json for categories; without it, the only category is "object".
mots: KITTI-MOTS or MOTSChallenge, as text or 16-bit PNGs (class * 1000 + number). Ignored regions (class 10)
become crowd annotations of every category; --ignore-regions drop removes them.
cvat: "CVAT for video 1.1" with polygons and masks. Boxes are an error; --boxes fill turns them into masks.
frames: one folder of frames per video, without annotations, for prediction.

Frames are not copied; file names in the JSON are relative to --frames. Check the result with
`seqformer check`, and train on it as ytvis:JSON:FRAMES. datasets/README.md shows the folder layouts.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from seqformer.cli.program import program
from seqformer.errors import InputError, name_flags
from seqformer.formats.builder import read_frames
from seqformer.formats.cvat import read_cvat
from seqformer.formats.davis import read_davis
from seqformer.formats.mots import MOTS_CLASSES, read_mots
from seqformer.formats.ytvis import Dataset, write_ytvis

__all__ = ["add_arguments", "main", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    formats = parser.add_subparsers(dest="format", required=True, metavar="FORMAT")
    commands = {
        name: formats.add_parser(name, help=text)
        for name, text in (
            ("davis", "DAVIS or YouTube-VOS: PNGs"),
            ("mots", "KITTI-MOTS or MOTSChallenge: text or PNGs"),
            ("cvat", "CVAT for video 1.1: XML"),
            ("frames", "frames without annotations"),
        )
    }
    davis, mots, cvat, frames = commands.values()
    for command, text in (
        (davis, "folder with one subfolder of PNGs per video"),
        (mots, "folder with NAME.txt, NAME/gt/gt.txt or a subfolder of PNGs per sequence"),
    ):
        command.add_argument("--annotations", type=Path, required=True, metavar="FOLDER", help=text)
    cvat.add_argument(
        "--annotations", type=Path, nargs="+", required=True, metavar="XML", help="one export per task"
    )
    for command in commands.values():
        command.add_argument(
            "--frames", type=Path, required=True, metavar="FOLDER", help="folder of the frames"
        )
        command.add_argument("--output", type=Path, required=True, metavar="JSON", help="file to write")
    davis.add_argument("--meta", type=Path, metavar="JSON", help="YouTube-VOS's meta.json, for categories")
    davis.add_argument("--void", type=int, metavar="ID", help="id of pixels to ignore")
    mots.add_argument(
        "--classes",
        type=_class,
        nargs="+",
        default=list(MOTS_CLASSES.items()),
        metavar="ID=NAME",
        help="names of the classes (default: " + " ".join(f"{i}={n}" for i, n in MOTS_CLASSES.items()) + ")",
    )
    mots.add_argument(
        "--ignore-regions",
        choices=("crowd", "drop"),
        default="crowd",
        help="turn ignored regions into crowd annotations, or drop them (default: %(default)s)",
    )
    cvat.add_argument(
        "--boxes",
        choices=("refuse", "fill"),
        default="refuse",
        help="what to do with boxes (default: %(default)s)",
    )
    frames.add_argument(
        "--categories",
        nargs="+",
        required=True,
        metavar="NAME",
        help="category names, in the order of the model",
    )


def run(args: argparse.Namespace) -> None:
    if not args.frames.is_dir():
        raise InputError(f"no folder '{args.frames}'")
    dataset = _read(args)
    write_ytvis(args.output, dataset)
    counts = [f"{len(dataset.videos)} videos", f"{len(dataset.names)} categories"]
    if dataset.annotations is not None:
        counts.append(f"{len(dataset.annotations)} annotations")
    print(f"{args.output}: {', '.join(counts)}")


def _read(args: argparse.Namespace) -> Dataset:
    if args.format == "davis":
        return read_davis(args.annotations, args.frames, args.meta, args.void)
    if args.format == "mots":
        keep_ignored = args.ignore_regions == "crowd"
        return read_mots(args.annotations, args.frames, dict(args.classes), keep_ignored)
    if args.format == "cvat":
        with name_flags({"fill_boxes": "--boxes fill"}):
            return read_cvat(args.annotations, args.frames, fill_boxes=args.boxes == "fill")
    return read_frames(args.frames, args.categories)


def _class(text: str) -> tuple[int, str]:
    """Parses ID=NAME."""
    id_, _, name = text.partition("=")
    if not id_.isdecimal() or not name:
        raise argparse.ArgumentTypeError(f"'{text}' is not ID=NAME")
    return int(id_), name


main = program(add_arguments, run, __doc__)
