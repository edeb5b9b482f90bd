"""Converts video annotations in other formats to YouTube-VIS JSON.

    seqformer convert dataset davis --annotations Annotations --frames JPEGImages --output davis.json
    seqformer convert dataset mots --annotations instances_txt --frames image_02 --output mots.json
    seqformer convert dataset cvat --annotations task.xml --frames frames --output task.json
    seqformer convert dataset coco --annotations frames.json --frames frames --output task.json
    seqformer convert dataset label-studio --annotations tasks.json --frames frames --output task.json
    seqformer convert dataset labelme --annotations labelme --frames frames --output task.json
    seqformer convert dataset yolo --annotations yolo --frames yolo/images --output task.json
    seqformer convert dataset frames --frames frames --categories person car --output unlabelled.json

davis: one folder of PNGs per video; palette indices or grey levels are object ids. --meta takes YouTube-VOS's
meta.json for categories; without it, the only category is "object".
mots: KITTI-MOTS or MOTSChallenge, as text or 16-bit PNGs (class * 1000 + number). Ignored regions (class 10)
become crowd annotations of every category; --ignore-regions drop removes them.
cvat: "CVAT for video 1.1" with polygons and masks. Boxes are an error; --boxes fill turns them into masks.
Tracks of a label with the same number in the attribute "instance" are one instance.
coco: images that are frames of videos; annotations with the same track_id (or instance_id) are an instance.
label-studio: an export as JSON, of image tasks with brush or polygon labels. --config is the labeling
configuration.
labelme: a JSON for every frame; group_id is the instance.
yolo: data.yaml and labels/ with polygons. Without --track-ids, each polygon is an instance of one frame.
frames: one folder of frames per video, without annotations, for prediction.

davis, mots, cvat and labelme take --meta, the meta.json that `seqformer convert results` and `seqformer
convert annotations` write: it brings back the ids of categories, videos and instances. Except for davis, it
is used without --meta if it is in the folder of the annotations. So is config.xml of label-studio.

If the annotations have scores, they may be results: --results also writes them as a results.json.

Frames are not copied; file names in the JSON are relative to --frames. Check the result with
`seqformer check`, and train on it as ytvis:JSON:FRAMES. datasets/README.md shows the folder layouts.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seqformer.cli.program import add_overwrite_argument, check_new, program
from seqformer.errors import InputError, name_flags
from seqformer.formats.builder import read_frames
from seqformer.formats.coco import read_coco_video
from seqformer.formats.cvat import read_cvat
from seqformer.formats.davis import read_davis
from seqformer.formats.label_studio import CONFIG, read_label_studio
from seqformer.formats.labelme import read_labelme
from seqformer.formats.meta import find_meta
from seqformer.formats.mots import MOTS_CLASSES, read_mots
from seqformer.formats.results import write_results
from seqformer.formats.yolo import read_yolo
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
            ("coco", "COCO: a JSON of images that are frames of videos"),
            ("label-studio", "Label Studio: a JSON export"),
            ("labelme", "labelme: JSON files"),
            ("yolo", "YOLO segmentation: text files"),
            ("frames", "frames without annotations"),
        )
    }
    davis, mots, cvat, coco, label_studio, labelme, yolo, frames = commands.values()
    for command, text in (
        (davis, "folder with one subfolder of PNGs per video"),
        (mots, "folder with NAME.txt, NAME/gt/gt.txt or a subfolder of PNGs per sequence"),
        (labelme, "folder with one subfolder of JSON files per video, or with those of one video"),
        (yolo, "folder of data.yaml and labels/"),
    ):
        command.add_argument("--annotations", type=Path, required=True, metavar="FOLDER", help=text)
    cvat.add_argument(
        "--annotations", type=Path, nargs="+", required=True, metavar="XML", help="one export per task"
    )
    for command, text in ((coco, "the COCO file"), (label_studio, "the export")):
        command.add_argument("--annotations", type=Path, required=True, metavar="JSON", help=text)
    for command in commands.values():
        command.add_argument(
            "--frames", type=Path, required=True, metavar="FOLDER", help="folder of the frames"
        )
        command.add_argument("--output", type=Path, required=True, metavar="JSON", help="file to write")
        add_overwrite_argument(command)
    for command in (davis, mots, cvat, coco, label_studio, labelme, yolo):
        command.add_argument(
            "--results", type=Path, metavar="JSON", help="also write the annotations as a results.json"
        )
    davis.add_argument("--meta", type=Path, metavar="JSON", help="YouTube-VOS's meta.json, for categories")
    for command in (mots, cvat, labelme):
        command.add_argument(
            "--meta", type=Path, metavar="JSON", help="meta.json (default: that next to the annotations)"
        )
    label_studio.add_argument(
        "--config",
        type=Path,
        metavar="XML",
        help="labeling configuration (default: config.xml next to the export)",
    )
    yolo.add_argument("--confidences", action="store_true", help="lines end with a confidence")
    yolo.add_argument("--track-ids", action="store_true", help="lines end with a track id")
    davis.add_argument("--void", type=int, metavar="ID", help="id of pixels to ignore")
    mots.add_argument(
        "--classes",
        type=_class,
        nargs="+",
        metavar="ID=NAME",
        help="names of the classes (default: those of meta.json, or "
        + " ".join(f"{i}={n}" for i, n in MOTS_CLASSES.items())
        + ")",
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
    results = getattr(args, "results", None)
    for path in (args.output, results):
        check_new(path, args.overwrite)
    dataset = _read(args)
    write_ytvis(args.output, dataset)
    if results is not None:
        write_results(results, _results(dataset))
    counts = [f"{len(dataset.videos)} videos", f"{len(dataset.names)} categories"]
    if dataset.annotations is not None:
        counts.append(f"{len(dataset.annotations)} annotations")
    print(f"{args.output}: {', '.join(counts)}")


def _read(args: argparse.Namespace) -> Dataset:
    if args.format == "frames":
        return read_frames(args.frames, args.categories)
    if args.format == "coco":
        return read_coco_video(args.annotations, args.frames)
    if args.format == "yolo":
        return read_yolo(args.annotations, args.frames, args.confidences, args.track_ids)
    if args.format == "label-studio":
        config = args.config or args.annotations.with_name(CONFIG)
        return read_label_studio(args.annotations, args.frames, config if config.exists() else args.config)
    if args.format == "davis":
        return read_davis(args.annotations, args.frames, args.meta, args.void)
    folder = args.annotations[0].parent if args.format == "cvat" else args.annotations
    meta = args.meta or find_meta(folder)
    if args.format == "labelme":
        return read_labelme(args.annotations, args.frames, meta)
    if args.format == "mots":
        classes = None if args.classes is None else dict(args.classes)
        return read_mots(args.annotations, args.frames, classes, args.ignore_regions == "crowd", meta)
    with name_flags({"fill_boxes": "--boxes fill"}):
        return read_cvat(args.annotations, args.frames, args.boxes == "fill", meta)


def _results(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """Yields the annotations as entries of results.json, with score 1 if they have none."""
    for annotation in dataset.annotations or ():
        yield {
            "video_id": annotation.video.id,
            "category_id": annotation.category,
            "score": 1.0 if annotation.score is None else annotation.score,
            "segmentations": annotation.masks,
        }


def _class(text: str) -> tuple[int, str]:
    """Parses ID=NAME."""
    id_, _, name = text.partition("=")
    if not id_.isdecimal() or not name:
        raise argparse.ArgumentTypeError(f"'{text}' is not ID=NAME")
    return int(id_), name


main = program(add_arguments, run, __doc__)
