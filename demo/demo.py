#!/usr/bin/env python3
"""Segments and tracks the instances of a video.

    python demo/demo.py --input demo/assets/street.mp4 --output output/street.mp4

    python demo/demo.py --input camera:0 --output output/camera.mp4

The input is a video, a folder or glob pattern of frames, picture files, a camera or an address. The output is
an .mp4, or a folder of pictures, with the drawn instances; beside the .mp4 (or in the folder) stands a JSON
file with all that was found, in YouTube-VIS format.

    python demo/demo.py --input 'videos/*.mp4' --output results
    torchrun --nproc_per_node 4 demo/demo.py --input 'videos/*.mp4' --output results

    python demo/demo.py --input demo/assets/street.mp4 --html output/street.html

makes a page, too, to explore the video and what the model looks at; it is one file, for any browser.

Each of several videos gets files of its own. What is there already is skipped, and a video that fails does
not stop the rest.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import seqformer  # noqa: F401  before Detectron2, one of whose warnings it hides

# isort: split
import cv2
import numpy as np
from detectron2.config import CfgNode
from pycocotools import mask as mask_codec
from tqdm import tqdm

from background import in_background, read_ahead
from many_videos import several_videos, shared_out, targets_of
from seqformer.commands import DEFAULT_CONFIG, classes, setup_cfg
from seqformer.engine import keep_freed_memory
from seqformer.errors import InputError, exit_on_bad_input
from seqformer.evaluation.results import tracklets_to_results, write_results
from seqformer.inference import ClipTracer, VideoPredictor
from seqformer.structures import Tracklet
from seqformer.visualization import (
    FrameSource,
    FrameWriter,
    VideoWriter,
    draw_instances,
    open_source,
    open_writer,
)
from seqformer.visualization.page import check_page, write_page
from seqformer.visualization.rows import best_tracklets
from streaming_job import StreamingJob

DEFAULT_THRESHOLD = 0.4

_DEPTH = 8  # frames that --background-io reads ahead, and that wait to be written
_VIDEO_ID = 1  # of the only video in the JSON
_INTERRUPTED = 130  # exit code, 128 + SIGINT


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Segment and track the instances of a video with SeqFormer.",
        epilog="Without --config-file and --weights the shipped pedestrian model runs.",
    )
    parser.add_argument(
        "--config-file", default=str(DEFAULT_CONFIG), metavar="FILE", help="config of the model"
    )
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="weights that fit the config, .pth or .safetensors (default: MODEL.WEIGHTS of --opts or the "
        "config; the shipped model for the default config)",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--input",
        nargs="+",
        metavar="PATH",
        help="a video, a folder or quoted glob pattern of frames, pictures (taken in natural order), a "
        "camera (camera:0) or an address (rtsp://..., http://...); or several videos or a pattern of them",
    )
    source.add_argument("--video-input", metavar="FILE", help="a video (the name in Detectron2's demo)")
    source.add_argument("--webcam", action="store_true", help="the same as --input camera:0")
    parser.add_argument(
        "--output",
        metavar="PATH",
        help="an .mp4 file, or a folder for pictures or for several videos' files (default: "
        "output/NAME OF THE INPUT.mp4)",
    )
    parser.add_argument(
        "--confidence-threshold",
        type=float,
        default=DEFAULT_THRESHOLD,
        metavar="SCORE",
        help="least score of an instance that is drawn (default: %(default)s); the JSON holds all",
    )
    parser.add_argument(
        "--html",
        metavar="FILE",
        help="make a page to explore one video, too: instances, sampling points, temporal weights",
    )
    parser.add_argument(
        "--streaming",
        action="store_true",
        help="track clip by clip, and write every frame as soon as it is final: memory does not grow, and "
        "what a killed run leaves is valid; drawn are scores so far (always so for cameras and addresses)",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with an interrupted --streaming run, with the same ids"
    )
    parser.add_argument("--display", action="store_true", help="stream, and show frames in a window, too")
    parser.add_argument(
        "--background-io",
        action="store_true",
        help="read frames ahead, and draw and write them behind, in threads beside the network",
    )
    parser.add_argument(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="KEY VALUE",
        help="change keys of the config, at the end of the command",
    )
    return parser.parse_args(argv)


def with_progress(frames: Iterable[np.ndarray], total: int | None, what: str) -> Iterable[np.ndarray]:
    """The same frames, with a progress bar on a terminal."""
    done = " {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} frames, {rate_noinv_fmt}, {remaining} left"
    form = "{desc}" + (done if total else " {n_fmt} frames, {rate_noinv_fmt}")
    return tqdm(frames, what, total, unit=" frames", bar_format=form, disable=None, dynamic_ncols=True)


def draw_video(
    source: FrameSource,
    tracklets: Sequence[Tracklet],
    length: int,
    names: Sequence[str],
    writer: FrameWriter,
    depth: int = 0,
) -> None:
    """Draws the tracklets on the first ``length`` frames of the source."""
    with read_ahead(source, depth) as frames, in_background(writer.write, depth) as write:
        for t, frame in zip(range(length), with_progress(frames, length, "drawing"), strict=False):
            seen = [tracklet for tracklet in tracklets if tracklet.segmentations[t] is not None]
            if seen:
                masks = mask_codec.decode([tracklet.segmentations[t] for tracklet in seen])
                frame = draw_instances(
                    frame,
                    masks.transpose(2, 0, 1),
                    [tracklet.instance_id for tracklet in seen],
                    [names[tracklet.label] for tracklet in seen],
                    [tracklet.score for tracklet in seen],
                )
            write(frame)


def run(args: argparse.Namespace) -> None:
    """The whole command.

    Raises:
        InputError: if the input, the model or the output cannot be used.
    """
    if not 0 <= args.confidence_threshold <= 1:
        raise InputError(f"--confidence-threshold {args.confidence_threshold}: give a score from 0 to 1")
    if args.background_io and args.display:
        raise InputError("--background-io: a window belongs to the main thread; leave out --display")
    logging.basicConfig(format="%(message)s")
    logging.getLogger("seqformer").setLevel(logging.INFO)
    cfg = setup_cfg(args.config_file, args.weights, args.opts)
    if cfg.MODEL.DEVICE == "cpu":
        keep_freed_memory()
    if videos := several_videos(args.input or []):
        if args.html:
            raise InputError(f"--html is for one video, but there are {len(videos)}: run them one by one")
        run_many(args, cfg, videos)
        return
    with open_source("camera:0" if args.webcam else args.input or args.video_input) as source:
        if args.resume and not source.paths:
            raise InputError(f"--resume: what '{source.name}' has shown in the meantime is gone; start anew")
        if args.html and (args.streaming or args.resume or args.display or not source.paths):
            raise InputError(
                "--html needs a whole video: it goes with no camera or address, --streaming, --resume or "
                "--display"
            )
        output = Path(args.output or Path("output") / f"{source.name}.mp4")
        run_one(args, cfg, source, output, lambda: VideoPredictor(cfg))


def run_many(args: argparse.Namespace, cfg: CfgNode, videos: Sequence[Path]) -> None:
    """Every video into files of its own; what is done is skipped, what was interrupted goes on.

    Raises:
        InputError: if the model or the output cannot be used.
        SystemExit: with code 1 if videos failed, after all others.
    """
    targets = targets_of(videos, Path(args.output or "output"))
    with shared_out() as share:
        if cfg.MODEL.DEVICE == "cuda" and share.count > 1:
            cfg = cfg.clone()
            cfg.defrost()
            cfg.MODEL.DEVICE = f"cuda:{share.local_rank}"
            cfg.freeze()
        predictor = VideoPredictor(cfg)
        args.resume = args.streaming = args.streaming or args.resume

        def track(video: Path, target: Path) -> None:
            with open_source(str(video)) as source:
                run_one(args, cfg, source, target, lambda: predictor)

        failures = share.run(targets, track)
    if failures and share.rank:
        sys.exit(1)
    if failures:
        print(f"{len(failures)} of {len(videos)} videos failed:", file=sys.stderr)
        for video, reason in failures:
            print(f"  {video}: {reason}", file=sys.stderr)
        sys.exit(1)


def run_one(
    args: argparse.Namespace,
    cfg: CfgNode,
    source: FrameSource,
    output: Path,
    make_predictor: Callable[[], VideoPredictor],
) -> None:
    """One video, from the input to the files.

    Raises:
        InputError: if the input, the model or the output cannot be used.
    """
    start = time.perf_counter()
    names, ids = classes(cfg)
    if args.streaming or args.resume or args.display or not source.paths:
        length, shown, json_path = stream_video(args, source, output, names, ids, make_predictor)
    else:
        length, shown, json_path = whole_video(args, cfg, source, output, names, ids, make_predictor)
    seconds = time.perf_counter() - start
    instances = f"{shown} instances with a score of at least {args.confidence_threshold:g}"
    print(f"{instances} in {length} frames, {seconds:.1f} seconds\n{output}\n{json_path}")
    if args.html:
        print(args.html)


def check_html(html: str, source: FrameSource, output: Path, cfg: CfgNode) -> None:
    """Finds out before the long part whether the page can be written.

    Raises:
        InputError: if it cannot.
    """
    options = cfg.MODEL.SeqFormer
    cut = options.CLIP_MATCHING and not options.AUTO_MEMORY_GB  # which may choose the whole video
    check_page(html, source.length, clip_matching=cut)
    if os.path.exists(html) and any(os.path.samefile(html, path) for path in source.paths):
        raise InputError(f"--html '{html}' is the input itself: choose another name")
    if Path(html).resolve().is_relative_to(output.resolve()):
        raise InputError(f"--html '{html}' is in the folder of pictures: choose another place")


def whole_video(
    args: argparse.Namespace,
    cfg: CfgNode,
    source: FrameSource,
    output: Path,
    names: Sequence[str],
    ids: Sequence[int],
    make_predictor: Callable[[], VideoPredictor],
) -> tuple[int, int, Path]:
    """Tracks a video, then draws it. Returns its frames, the instances drawn, and the JSON file."""
    if args.html:
        check_html(args.html, source, output, cfg)
    depth = _DEPTH if args.background_io else 0
    # Entered before the long part, so that an output that cannot be written is found out now.
    with open_writer(output, source) as writer:
        is_video = isinstance(writer, VideoWriter)
        json_path = output.with_suffix(".json") if is_video else output / "results.json"
        if os.path.isdir(json_path):
            raise InputError(f"'{json_path}' is a folder, but the results go there: choose another --output")
        predictor = make_predictor()
        with ExitStack() as stack:
            tracer = stack.enter_context(ClipTracer(predictor.network)) if args.html else None
            frames = stack.enter_context(read_ahead(source, depth))
            result = predictor(with_progress(frames, source.length, "tracking"), observer=tracer)
        if source.problem:
            print(f"warning: {source.problem}", file=sys.stderr)
        tracklets = best_tracklets(result, args.confidence_threshold)
        draw_video(source, tracklets, result.length, names, writer, depth)
    write_results(json_path, tracklets_to_results(result, _VIDEO_ID, ids))
    if tracer is not None:
        write_page(
            args.html,
            with_progress(source, result.length, "page"),
            result,
            best_tracklets(result),
            tracer,
            names,
            title=source.name,
            fps=source.fps,
            threshold=args.confidence_threshold,
        )
    return result.length, len(tracklets), json_path


def stream_video(
    args: argparse.Namespace,
    source: FrameSource,
    output: Path,
    names: Sequence[str],
    ids: Sequence[int],
    make_predictor: Callable[[], VideoPredictor],
) -> tuple[int, int, Path]:
    """Tracks and draws frame by frame. Returns the frames, the instances drawn, and the JSON file."""
    job = StreamingJob(
        output,
        source,
        names=names,
        category_ids=ids,
        video_id=_VIDEO_ID,
        threshold=args.confidence_threshold,
        resume=args.resume,
        show=show_frame if args.display else None,
        depth=_DEPTH if args.background_io else 0,
    )
    stream = make_predictor().stream(clip_matching=True)
    try:
        length = job.run(stream, lambda frames: with_progress(frames, source.length, "tracking"))
    except KeyboardInterrupt:
        print(f"\ninterrupted after {stream.num_final} frames, which are in '{job.output}'", file=sys.stderr)
        print("the same command with --resume goes on from there", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    if source.problem:
        print(f"warning: {source.problem}", file=sys.stderr)
    return length, len(job.drawn), job.json_path


def show_frame(frame: np.ndarray) -> None:
    """Shows an RGB frame in a window.

    Raises:
        InputError: if OpenCV has no windows.
    """
    try:
        cv2.imshow("SeqFormer", frame[..., ::-1])
        cv2.waitKey(1)
    except cv2.error as error:
        raise InputError(
            "--display: this OpenCV has no windows; install opencv-python instead of opencv-python-headless"
        ) from error


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    try:
        with exit_on_bad_input():
            run(args)
    except KeyboardInterrupt:
        print("\ninterrupted; what was complete before stays, nothing half-written does", file=sys.stderr)
        sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
