"""Converts a results.json to formats of annotation tools and other benchmarks.

    seqformer convert results davis --dataset val.json --results results.json --output masks/
    seqformer convert results mots --dataset val.json --results results.json --output mots/
    seqformer convert results coco --dataset val.json --results results.json --output frames.json
    seqformer convert results cvat --dataset val.json --results results.json --output cvat/
    seqformer convert results label-studio --dataset val.json --results results.json --output tasks/
    seqformer convert results labelme --dataset val.json --results results.json --output labelme/
    seqformer convert results yolo --dataset val.json --results results.json --output yolo/

davis: palette PNGs in Annotations/, one folder per video, and meta.json.
mots: one text file per video, and meta.json.
coco: one file with a mask, score and track_id for every instance and frame; also for FiftyOne.
cvat: "CVAT for video 1.1", one XML file per video with masks, labels.json for CVAT's labels, and meta.json.
label-studio: tasks.json with a task for every frame, and config.xml for the labels.
labelme: a JSON for every frame, one folder per video, and meta.json.
yolo: labels/ with polygons for every frame, and data.yaml. Track ids and scores are lost.
In davis and mots, the instance with the higher score is in front where instances overlap.

`seqformer convert dataset` reads all of them. The dataset is the YouTube-VIS JSON of the results' videos;
annotations are not needed. For unlabelled frames, `seqformer convert dataset frames` creates it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from seqformer.cli.program import add_overwrite_argument, check_new, program
from seqformer.errors import name_flags
from seqformer.formats.coco import write_coco
from seqformer.formats.cvat import write_cvat
from seqformer.formats.davis import write_davis
from seqformer.formats.label_studio import LOCAL_FILES, write_label_studio
from seqformer.formats.labelled import read_labelled
from seqformer.formats.labelme import write_labelme
from seqformer.formats.mots import write_mots
from seqformer.formats.yolo import write_yolo

__all__ = ["add_arguments", "add_formats", "main", "run"]

_FORMATS = {
    "coco": "COCO images with track ids: one JSON file",
    "cvat": "CVAT for video 1.1: a folder of XML files",
    "davis": "DAVIS: a folder of PNGs",
    "label-studio": "Label Studio: a folder with tasks.json and config.xml",
    "labelme": "labelme: a folder of JSON files",
    "mots": "MOTS: a folder of text files",
    "yolo": "YOLO segmentation: a folder of text files",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for command in add_formats(parser):
        command.add_argument("--results", type=Path, required=True, metavar="JSON", help="results.json")
        command.add_argument(
            "--score-threshold",
            type=float,
            default=0.4,
            metavar="SCORE",
            help="drop results with lower scores (default: %(default)s)",
        )


def add_formats(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """Adds a command for each format, with the arguments that do not depend on what is written."""
    formats = parser.add_subparsers(dest="format", required=True, metavar="FORMAT")
    commands = {name: formats.add_parser(name, help=text) for name, text in _FORMATS.items()}
    for name, command in commands.items():
        command.add_argument(
            "--dataset", type=Path, required=True, metavar="JSON", help="YouTube-VIS JSON with the videos"
        )
        if name == "coco":
            command.add_argument("--output", type=Path, required=True, metavar="JSON", help="file to write")
            add_overwrite_argument(command)
        else:
            command.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="a new folder")
    for name, text in (
        ("labelme", "folder of the frames, which the JSON files then name"),
        ("yolo", "folder of the frames, to link them as images/, where Ultralytics looks for them"),
    ):
        commands[name].add_argument("--frames", type=Path, metavar="FOLDER", help=text)
    commands["labelme"].add_argument(
        "--shapes",
        choices=("mask", "polygon"),
        default="mask",
        help="kind of shapes; polygons are easier to edit, but have no holes (default: %(default)s)",
    )
    commands["label-studio"].add_argument(
        "--image-prefix",
        default=LOCAL_FILES,
        metavar="URL",
        help="URL that the names of frames are added to (default: %(default)s)",
    )
    return list(commands.values())


def run(args: argparse.Namespace) -> None:
    if args.format == "coco":
        check_new(args.output, args.overwrite)
    with name_flags({"score_threshold": "--score-threshold"}):
        names, videos = read_labelled(
            args.dataset, getattr(args, "results", None), getattr(args, "score_threshold", 0.0)
        )
        if args.format == "coco":
            write_coco(videos, names, args.output)
        elif args.format == "cvat":
            write_cvat(videos, names, args.output)
        elif args.format == "davis":
            write_davis(videos, names, args.output)
        elif args.format == "label-studio":
            write_label_studio(videos, names, args.output, args.image_prefix)
        elif args.format == "labelme":
            write_labelme(videos, names, args.output, args.frames, polygons=args.shapes == "polygon")
        elif args.format == "mots":
            write_mots(videos, names, args.output)
        else:
            write_yolo(videos, names, args.output, args.frames)
    print(f"{args.output}: {sum(len(video.instances) for video in videos)} instances")


main = program(add_arguments, run, __doc__)
