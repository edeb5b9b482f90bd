"""Draws the paper's figures for any video and trained model, and compares results.

    seqformer figure instances --input street.mp4 --results street.json --output instances.png
    seqformer figure sampling-points --input street.mp4 --frames 40:70:6 --instances top3 --layers all
    seqformer figure temporal-weights --input street.mp4 --frames 40:60:2 --instances 0,2
    seqformer figure compare --dataset val.json --images JPEGImages --video-id 3 \\
        --results ours=a.json other=b.json --output compare.pdf

Frames come from --input (a video, a folder, pictures) or from a video of a YouTube-VIS dataset (--dataset,
--images, --video-id). If the dataset has annotations, instances and compare also show the ground truth. In
sampling-points and temporal-weights the chosen frames form the clip that the model processes. If --output is
an .mp4, compare writes a video with the results side by side.
By default the shipped pedestrian model is used.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from seqformer.checkpoints import trust_checkpoints
from seqformer.cli.model import MODEL_FLAGS, add_model_arguments, load_model_config, say_notice
from seqformer.cli.program import add_outside_argument, add_overwrite_argument, check_new, program
from seqformer.errors import InputError, name_flags
from seqformer.formats.ytvis import allow_outside
from seqformer.inference import VideoPredictor, classes
from seqformer.video import DatasetVideo, open_dataset_video
from seqformer.visualization.comparison import write_side_by_side
from seqformer.visualization.crop import crop_frames, crop_row, crop_trace, windows
from seqformer.visualization.figures import (
    FORMATS,
    Frames,
    instances_figure,
    sampling_points_figure,
    save_figure,
    temporal_weights_figure,
)
from seqformer.visualization.rows import (
    Row,
    check_threshold,
    ground_truth_row,
    match_colors,
    read_rows,
    result_row,
    trace_row,
)

__all__ = ["add_arguments", "main", "run"]

_DPI = range(30, 1201)
_WIDTHS = (1.0, 100.0)  # inches
_FLAGS = {
    "dataset": "--dataset",
    "images": "--images",
    "inputs": "--input",
    "threshold": "--confidence-threshold",
    "video_id": "--video-id",
    **MODEL_FLAGS,
}


def parse_frames(text: str | None, count: int, length: int) -> list[int]:
    """Returns the frame numbers in ``text`` ("0,8,40:70:6"), or ``count`` evenly spaced ones.

    Raises:
        InputError: if the text is malformed, or a frame does not exist.
    """
    if text is None:
        if count < 1:
            raise InputError(f"--count {count}: must be at least 1")
        return np.unique(np.linspace(0, length - 1, min(count, length)).round().astype(int)).tolist()
    numbers: list[int] = []
    for part in text.split(","):
        if not re.fullmatch(r"\s*\d+\s*(:\s*\d+\s*(:\s*[1-9]\d*\s*)?)?", part):
            raise InputError(
                f"--frames {text}: write numbers and ranges START:STOP:STEP, such as 0,8,40:70:6"
            )
        first, *rest = (int(number) for number in part.split(":"))
        numbers += range(first, *rest) if rest else [first]
    if not numbers:
        raise InputError(f"--frames {text}: there are no frames in this range")
    beyond = [t for t in numbers if t >= length]
    if beyond:
        raise InputError(f"there is no frame {beyond[0]}: the video has frames 0 to {length - 1}")
    return list(dict.fromkeys(numbers))


def parse_numbers(text: str, option: str) -> list[int]:
    """Parses numbers separated by commas, and removes duplicates."""
    if not re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*)*", text):
        raise InputError(f"{option} {text}: write numbers separated by commas")
    return list(dict.fromkeys(int(number) for number in text.split(",")))


def parse_layers(text: str, num_layers: int) -> list[int]:
    """Parses decoder layers, counted from 1: "all", "last" or numbers."""
    if text in ("all", "last"):
        return list(range(1 if text == "all" else num_layers, num_layers + 1))
    return parse_numbers(text, "--layers")


def parse_instances(text: str, count: int) -> list[int]:
    """Parses instances: "all", "topN" (the N best) or ids."""
    if text == "all":
        return list(range(count))
    if best := re.fullmatch(r"top([1-9]\d*)", text):
        return list(range(min(int(best[1]), count)))
    return parse_numbers(text, "--instances")


def parse_results(pairs: Sequence[str]) -> dict[str, Path]:
    """Parses NAME=FILE arguments, and returns the files by name of the method.

    Raises:
        InputError: if an argument is malformed, or two have the same name.
    """
    files: dict[str, Path] = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not name or not equals or not path:
            raise InputError(f"--results {pair}: write NAME=FILE")
        if name in files:
            raise InputError(f"--results: two methods have the name '{name}'")
        files[name] = Path(path)
    return files


def figure_path(args: argparse.Namespace) -> tuple[Path, str]:
    """Returns the path of the figure and its format: --format, the suffix of --output, or PNG.

    Raises:
        InputError: if --format and the suffix differ, or the format is unknown.
    """
    path = args.output or Path("output") / f"{args.figure}.{args.format or 'png'}"
    suffix = path.suffix.lower().removeprefix(".")
    kind = args.format or suffix
    if kind not in FORMATS or (suffix and suffix != kind):
        raise InputError(f"output '{path}': name a {', '.join(FORMATS)} file, the same as --format")
    if args.dpi not in _DPI:
        raise InputError(f"--dpi {args.dpi}: give {_DPI.start} to {_DPI.stop - 1}")
    if not _WIDTHS[0] <= args.width <= _WIDTHS[1]:
        raise InputError(f"--width {args.width}: give {_WIDTHS[0]:g} to {_WIDTHS[1]:g} inches")
    path = path if suffix else path.with_name(f"{path.name}.{kind}")
    if args.output is not None:
        check_new(path, args.overwrite)
    return path, kind


def open_video(args: argparse.Namespace) -> DatasetVideo:
    """Opens the video given on the command line, and warns if it is damaged.

    Raises:
        InputError: if it cannot be read or does not match the dataset.
    """
    with allow_outside(args.allow_outside):
        video = open_dataset_video(
            args.input, dataset=args.dataset, images=args.images, video_id=args.video_id
        )
    if video.problem:
        print(f"warning: {video.problem}", file=sys.stderr)
    return video


def pick_frames(args: argparse.Namespace, video: DatasetVideo) -> Frames:
    numbers = parse_frames(args.frames, args.count, video.video.length)
    return Frames(video.pick(numbers), numbers, video.times)


def crop(args: argparse.Namespace, frames: Frames, rows: list[Row]) -> tuple[Frames, list[Row]]:
    """Crops frames and masks to windows around the instances, if the user asked for it."""
    if not args.crop:
        return frames, rows
    boxes = windows(rows, frames.numbers, frames.size)
    return crop_frames(frames, boxes), [crop_row(row, frames.numbers, boxes) for row in rows]


def instances(args: argparse.Namespace) -> Path:
    """Draws a strip of frames with predicted instances and, if available, the ground truth."""
    path, kind = figure_path(args)
    check_threshold(args.confidence_threshold)
    video = open_video(args)
    frames = pick_frames(args, video)
    if args.results:
        files = {"result": args.results}
        rows = read_rows(files, video.video, video.dataset, args.confidence_threshold)
    else:
        cfg = load_model_config(args)
        say_notice(args, args.input or ())
        result = VideoPredictor(cfg)(video.frames)
        rows = [result_row("result", result, classes(cfg)[0], args.confidence_threshold)]
        if video.dataset and (truth := ground_truth_row(video.dataset, video.video)):
            rows.insert(0, truth)
        match_colors(rows)
    frames, rows = crop(args, frames, rows)
    figure = instances_figure(frames, rows, width=args.width, dpi=args.dpi, labels=not args.no_labels)
    save_figure(figure, path, kind, args.dpi)
    return path


def attention(args: argparse.Namespace) -> Path:
    """Draws sampling points or temporal weights of the chosen frames."""
    path, kind = figure_path(args)
    frames = pick_frames(args, open_video(args))
    cfg = load_model_config(args)
    say_notice(args, args.input or ())
    layers = parse_layers(args.layers, cfg.MODEL.SeqFormer.DEC_LAYERS)
    trace = VideoPredictor(cfg).trace(frames.pictures)
    chosen = parse_instances(args.instances, len(trace.queries))
    row = trace_row("result", trace, classes(cfg)[0], chosen)
    if args.crop:
        traced = range(trace.num_frames)
        boxes = windows([row], traced, frames.size)
        trace, row = crop_trace(trace, boxes, frames.size), crop_row(row, traced, boxes)
        frames = crop_frames(frames, boxes)
    shown = row.instances
    if args.figure == "sampling-points":
        figure = sampling_points_figure(
            frames, trace, shown, layers, level=args.level, width=args.width, dpi=args.dpi
        )
    else:
        figure = temporal_weights_figure(frames, trace, shown, layers, width=args.width, dpi=args.dpi)
    save_figure(figure, path, kind, args.dpi)
    return path


def compare(args: argparse.Namespace) -> Path:
    """Compares several results of one video, as a figure or a video."""
    is_video = args.output is not None and args.output.suffix.lower() == ".mp4"
    path, kind = (args.output, "mp4") if is_video else figure_path(args)
    if is_video and args.format:
        raise InputError(f"--format {args.format} cannot be used with the video '{path}'")
    if is_video:
        check_new(path, args.overwrite)
    check_threshold(args.confidence_threshold)
    files = parse_results(args.results)
    video = open_video(args)
    rows = read_rows(files, video.video, video.dataset, args.confidence_threshold)
    if is_video:
        write_side_by_side(path, video.frames, rows)
        return path
    frames, rows = crop(args, pick_frames(args, video), rows)
    figure = instances_figure(
        frames,
        rows,
        width=args.width,
        dpi=args.dpi,
        labels=not args.no_labels,
        mark_differences=True,
    )
    save_figure(figure, path, kind, args.dpi)
    return path


_FIGURES = {
    "instances": instances,
    "sampling-points": attention,
    "temporal-weights": attention,
    "compare": compare,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    figures = parser.add_subparsers(dest="figure", required=True)

    video = argparse.ArgumentParser(add_help=False)
    video.add_argument("--input", nargs="+", metavar="PATH", help="a video, a folder of frames, or pictures")
    video.add_argument(
        "--dataset", type=Path, metavar="JSON", help="YouTube-VIS JSON that contains the video"
    )
    video.add_argument(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="folder that the file names in --dataset are relative to",
    )
    video.add_argument(
        "--video-id", type=int, metavar="ID", help="id of the video (default: 1 without --dataset)"
    )
    video.add_argument(
        "--frames", metavar="NUMBERS", help="frames to show, counted from 0, such as 0,8,40:70:6"
    )
    video.add_argument(
        "--count", type=int, default=6, help="show this many evenly spaced frames (default: %(default)s)"
    )
    video.add_argument(
        "--crop",
        action="store_true",
        help="show a window around the instances in each frame; all windows have the same size",
    )
    video.add_argument(
        "--output", type=Path, metavar="FILE", help="file to write (default: output/FIGURE.FORMAT)"
    )
    add_overwrite_argument(video)
    add_outside_argument(video)
    video.add_argument(
        "--format", choices=FORMATS, help="format of the file (default: the suffix of --output, or png)"
    )
    video.add_argument(
        "--dpi",
        type=int,
        default=200,
        help="resolution of the figure, and of pictures in pdf and svg (default: %(default)s)",
    )
    video.add_argument(
        "--width", type=float, default=10.0, help="width of the figure in inches (default: %(default)s)"
    )

    model = argparse.ArgumentParser(add_help=False)
    add_model_arguments(model)

    drawn = argparse.ArgumentParser(add_help=False)
    drawn.add_argument(
        "--confidence-threshold",
        type=float,
        default=0.4,
        metavar="SCORE",
        help="minimum score of the instances to draw (default: %(default)s)",
    )
    drawn.add_argument("--no-labels", action="store_true", help="draw masks only")

    figure = figures.add_parser(
        "instances", parents=[video, drawn, model], help="a strip of frames with instances"
    )
    figure.add_argument(
        "--results",
        type=Path,
        metavar="JSON",
        help="results to draw, from `seqformer predict`, instead of running a model",
    )
    for name, layers, text in (
        ("sampling-points", "all", "where each instance looks in the chosen frames"),
        ("temporal-weights", "last", "the weight of each chosen frame for each instance"),
    ):
        figure = figures.add_parser(name, parents=[video, model], help=text)
        figure.add_argument(
            "--layers", default=layers, help='"all", "last", or numbers such as 1,3 (default: %(default)s)'
        )
        figure.add_argument(
            "--instances", default="top3", help='"all", "top3", or ids such as 0,2 (default: %(default)s)'
        )
        if name == "sampling-points":
            figure.add_argument("--level", type=int, help="feature level; 1 has stride 8 (default: all)")
    figure = figures.add_parser(
        "compare", parents=[video, drawn], help="results of several methods on one video"
    )
    figure.add_argument(
        "--results", nargs="+", required=True, metavar="NAME=JSON", help="results of each method"
    )


def run(args: argparse.Namespace) -> None:
    """Makes the figure and prints its path.

    Raises:
        InputError: if the input, the model or the output cannot be used.
    """
    with name_flags(_FLAGS), trust_checkpoints(getattr(args, "trust_checkpoint", False)):
        print(_FIGURES[args.figure](args))


main = program(add_arguments, run, __doc__)
