#!/usr/bin/env python3
"""The paper's figures for any video and any trained model, and comparisons of results.

    python tools/figure.py instances --input street.mp4 --results street.json --output instances.png
    python tools/figure.py sampling-points --input street.mp4 --frames 40:70:6 --instances top3 --layers all
    python tools/figure.py temporal-weights --input street.mp4 --frames 40:60:2 --instances 0,2
    python tools/figure.py compare --dataset val.json --images JPEGImages --video-id 3 \
        --results ours=a.json other=b.json --output compare.pdf

Frames come from --input (a video, a folder, pictures) or from a video of a YouTube-VIS dataset (--dataset,
--images, --video-id). With a dataset that has annotations, instances and compare show the ground truth, too.
In sampling-points and temporal-weights the frames that are shown are the clip that the model sees. With an
.mp4 as --output, compare writes all frames side by side.
Without --config-file and --weights the shipped pedestrian model runs.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import seqformer  # noqa: F401  before Detectron2, one of whose warnings it hides

# isort: split
import numpy as np

from seqformer.cli.model import DEFAULT_CONFIG, classes, setup_cfg
from seqformer.data.files import read_json
from seqformer.data.ytvis_format import Dataset, Video, parse_dataset, refuse
from seqformer.errors import InputError, exit_on_bad_input
from seqformer.inference import VideoPredictor
from seqformer.video import FrameSource, ImageSequenceReader, VideoReader, VideoWriter, open_source
from seqformer.visualization.comparison import side_by_side, side_by_side_size
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
    ground_truth_row,
    match_colors,
    read_results_row,
    result_row,
    trace_row,
)

_DPI = range(30, 1201)
_WIDTHS = (1.0, 100.0)  # inches


@dataclass
class Source:
    """The video of a figure.

    Attributes:
        frames: to read it.
        video: id, size and length.
        dataset: that it is of, if one is given.
        fps: None for pictures, which have no rate.
    """

    frames: FrameSource
    video: Video
    dataset: Dataset | None
    fps: float | None

    @property
    def class_names(self) -> Mapping[int, str]:
        """Of the dataset, by category id; empty without one."""
        return self.dataset.names if self.dataset else {}

    def pick(self, numbers: Sequence[int]) -> Frames:
        """Reads the frames of these numbers; they may come in any order."""
        wanted, pictures = set(numbers), {}
        with self.frames:  # may be left before its end
            for t, frame in enumerate(self.frames):
                if t in wanted:
                    pictures[t] = frame
                if len(pictures) == len(wanted):
                    break
        return Frames([pictures[t] for t in numbers], numbers, self.fps)


def open_video(args: argparse.Namespace) -> Source:
    """The video that the command line names.

    Raises:
        InputError: if it cannot be read, or is not the one of the dataset.
    """
    dataset, wanted = None, None
    if args.dataset is not None:
        dataset = parse_dataset(read_json(args.dataset), str(args.dataset), refuse)
        if args.video_id is None:
            raise InputError("--dataset: give --video-id, too")
        if args.video_id not in dataset.videos:
            raise InputError(f"there is no video {args.video_id} in {args.dataset}")
        wanted = dataset.videos[args.video_id]
    if args.input:
        source = open_source(args.input)
    elif wanted is None or args.images is None:
        raise InputError("no frames: give --input, or --dataset, --images and --video-id")
    else:
        source = ImageSequenceReader([args.images / name for name in wanted.names], keep_order=True)
    is_video = isinstance(source, VideoReader)
    length = sum(1 for _ in source) if is_video else source.length
    if source.problem:
        print(f"warning: {source.problem}", file=sys.stderr)
    if wanted is None:
        video_id = 1 if args.video_id is None else args.video_id
        wanted = Video(video_id, [str(t) for t in range(length)], source.height, source.width)
    elif (length, source.height, source.width) != (wanted.length, wanted.height, wanted.width):
        raise InputError(
            f"the frames are not those of video {wanted.id} in {args.dataset}: there are {length} of "
            f"{source.width}x{source.height} pixels, not {wanted.length} of {wanted.width}x{wanted.height}"
        )
    return Source(source, wanted, dataset, float(source.fps) if is_video else None)


def parse_frames(text: str | None, count: int, length: int) -> list[int]:
    """Numbers of frames: those that ``text`` names ("0,8,40:70:6"), or ``count`` evenly spaced ones.

    Raises:
        InputError: if the text cannot be read, or a frame does not exist.
    """
    if text is None:
        if count < 1:
            raise InputError(f"--count {count}: give at least 1")
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
        raise InputError(f"--frames {text}: no frame is in that range")
    beyond = [t for t in numbers if t >= length]
    if beyond:
        raise InputError(f"there is no frame {beyond[0]}: the video has frames 0 to {length - 1}")
    return list(dict.fromkeys(numbers))


def parse_numbers(text: str, option: str) -> list[int]:
    """Numbers separated by commas, each once."""
    if not re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*)*", text):
        raise InputError(f"{option} {text}: write numbers separated by commas")
    return list(dict.fromkeys(int(number) for number in text.split(",")))


def parse_layers(text: str, num_layers: int) -> list[int]:
    """Decoder layers, counted from 1: "all", "last" or numbers."""
    if text in ("all", "last"):
        return list(range(1 if text == "all" else num_layers, num_layers + 1))
    return parse_numbers(text, "--layers")


def parse_instances(text: str, count: int) -> list[int]:
    """Instances: "all", "topN" (the N best) or ids."""
    if text == "all":
        return list(range(count))
    if best := re.fullmatch(r"top([1-9]\d*)", text):
        return list(range(min(int(best[1]), count)))
    return parse_numbers(text, "--instances")


def parse_results(pairs: Sequence[str]) -> dict[str, Path]:
    """Files by method, of NAME=FILE arguments.

    Raises:
        InputError: if one is not of that form, or two have the same name.
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
    """Where the figure goes, and its format: --format, else the suffix of --output, else PNG.

    Raises:
        InputError: if the two do not agree, or there is no such format.
    """
    path = args.output or Path("output") / f"{args.command}.{args.format or 'png'}"
    suffix = path.suffix.lower().removeprefix(".")
    kind = args.format or suffix
    if kind not in FORMATS or (suffix and suffix != kind):
        raise InputError(f"output '{path}': name a {', '.join(FORMATS)} file, the same as --format")
    if args.dpi not in _DPI:
        raise InputError(f"--dpi {args.dpi}: give {_DPI.start} to {_DPI.stop - 1}")
    if not _WIDTHS[0] <= args.width <= _WIDTHS[1]:
        raise InputError(f"--width {args.width}: give {_WIDTHS[0]:g} to {_WIDTHS[1]:g} inches")
    return path if suffix else path.with_name(f"{path.name}.{kind}"), kind


def check_threshold(threshold: float) -> None:
    if not 0 <= threshold <= 1:
        raise InputError(f"--confidence-threshold {threshold}: give a score from 0 to 1")


def instances(args: argparse.Namespace) -> Path:
    """A strip of frames with what was found, and the ground truth if there is one."""
    path, kind = figure_path(args)
    check_threshold(args.confidence_threshold)
    source = open_video(args)
    numbers = parse_frames(args.frames, args.count, source.video.length)
    if args.results:
        videos = source.dataset.videos if source.dataset else None
        found = read_results_row(
            "result", args.results, source.video, source.class_names, args.confidence_threshold, videos
        )
    else:
        cfg = setup_cfg(args.config_file, args.weights, args.opts)
        result = VideoPredictor(cfg)(source.frames)
        found = result_row("result", result, classes(cfg)[0], args.confidence_threshold)
    truth = ground_truth_row(source.dataset, source.video) if source.dataset else None
    rows = [found] if truth is None else [truth, found]
    match_colors(rows)
    figure = instances_figure(
        source.pick(numbers), rows, width=args.width, dpi=args.dpi, labels=not args.no_labels
    )
    save_figure(figure, path, kind, args.dpi)
    return path


def attention(args: argparse.Namespace) -> Path:
    """Sampling points or temporal weights of the frames shown."""
    path, kind = figure_path(args)
    source = open_video(args)
    frames = source.pick(parse_frames(args.frames, args.count, source.video.length))
    cfg = setup_cfg(args.config_file, args.weights, args.opts)
    layers = parse_layers(args.layers, cfg.MODEL.SeqFormer.DEC_LAYERS)
    trace = VideoPredictor(cfg).trace(frames.pictures)
    chosen = parse_instances(args.instances, len(trace.queries))
    shown = trace_row("result", trace, classes(cfg)[0], chosen).instances
    if args.command == "sampling-points":
        figure = sampling_points_figure(
            frames, trace, shown, layers, level=args.level, width=args.width, dpi=args.dpi
        )
    else:
        figure = temporal_weights_figure(frames, trace, shown, layers, width=args.width, dpi=args.dpi)
    save_figure(figure, path, kind, args.dpi)
    return path


def compare(args: argparse.Namespace) -> Path:
    """Several results on one video, as a figure or a video."""
    is_video = args.output is not None and args.output.suffix.lower() == ".mp4"
    path, kind = (args.output, "mp4") if is_video else figure_path(args)
    if is_video and args.format:
        raise InputError(f"--format {args.format} does not go with the video '{path}'")
    check_threshold(args.confidence_threshold)
    files = parse_results(args.results)
    source = open_video(args)
    numbers = parse_frames(args.frames, args.count, source.video.length)
    rows = compared_rows(source, files, args.confidence_threshold)
    if not is_video:
        figure = instances_figure(
            source.pick(numbers),
            rows,
            width=args.width,
            dpi=args.dpi,
            labels=not args.no_labels,
            mark_differences=True,
        )
        save_figure(figure, path, kind, args.dpi)
        return path
    if any(path.exists() and path.samefile(read) for read in source.frames.paths):
        raise InputError(f"output '{path}' is the input itself: choose another name")
    height, width = side_by_side_size((source.video.height, source.video.width), len(rows))
    with VideoWriter(path, height, width, source.frames.fps) as writer:
        for t, frame in enumerate(source.frames):
            writer.write(side_by_side(frame, rows, t))
    return path


def compared_rows(source: Source, files: Mapping[str, Path], threshold: float) -> list[Row]:
    """The ground truth, if there is one, and the methods, with matched colours.

    Raises:
        InputError: if results cannot be read or are not on this video.
    """
    truth = ground_truth_row(source.dataset, source.video) if source.dataset else None
    videos = source.dataset.videos if source.dataset else None
    rows = [] if truth is None else [truth]
    for name, path in files.items():
        rows.append(read_results_row(name, path, source.video, source.class_names, threshold, videos))
    match_colors(rows)
    return rows


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)

    video = argparse.ArgumentParser(add_help=False)
    video.add_argument("--input", nargs="+", metavar="PATH", help="a video, folder of frames, or pictures")
    video.add_argument("--dataset", type=Path, metavar="JSON", help="YouTube-VIS JSON that has the video")
    video.add_argument("--images", type=Path, metavar="FOLDER", help="that file names of --dataset are in")
    video.add_argument("--video-id", type=int, metavar="ID", help="of the video (default: 1, as in demo.py)")
    video.add_argument("--frames", metavar="NUMBERS", help="frames to show, from 0, such as 0,8,40:70:6")
    video.add_argument(
        "--count", type=int, default=6, help="show so many evenly spaced frames (default: %(default)s)"
    )
    video.add_argument("--output", type=Path, metavar="FILE", help="default: output/COMMAND.FORMAT")
    video.add_argument("--format", choices=FORMATS, help="default: the suffix of --output, or png")
    video.add_argument(
        "--dpi", type=int, default=200, help="dots an inch, also of pictures in pdf and svg (%(default)s)"
    )
    video.add_argument("--width", type=float, default=10.0, help="inches (default: %(default)s)")

    model = argparse.ArgumentParser(add_help=False)
    model.add_argument("--config-file", default=str(DEFAULT_CONFIG), metavar="FILE", help="of the model")
    model.add_argument("--weights", metavar="FILE", help="that fit the config, .pth or .safetensors")
    model.add_argument(
        "--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="of the config"
    )

    drawn = argparse.ArgumentParser(add_help=False)
    drawn.add_argument(
        "--confidence-threshold", type=float, default=0.4, metavar="SCORE", help="(default: %(default)s)"
    )
    drawn.add_argument("--no-labels", action="store_true", help="masks alone")

    command = commands.add_parser("instances", parents=[video, drawn, model], help=instances.__doc__)
    command.add_argument(
        "--results", type=Path, metavar="JSON", help="what was found, as demo.py writes it; runs no model"
    )
    command.set_defaults(run=instances)
    for name, layers, best in (("sampling-points", "all", "top3"), ("temporal-weights", "last", "top3")):
        command = commands.add_parser(name, parents=[video, model], help=attention.__doc__)
        command.add_argument("--layers", default=layers, help='"all", "last", or 1,3 (default: %(default)s)')
        command.add_argument("--instances", default=best, help='"all", "top3", or ids (default: %(default)s)')
        if name == "sampling-points":
            command.add_argument("--level", type=int, help="feature level, 1 has stride 8 (default: all)")
        command.set_defaults(run=attention)
    command = commands.add_parser("compare", parents=[video, drawn], help=compare.__doc__)
    command.add_argument(
        "--results", nargs="+", required=True, metavar="NAME=JSON", help="results of the methods"
    )
    command.set_defaults(run=compare)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with exit_on_bad_input():
        print(args.run(args))


if __name__ == "__main__":
    main()
