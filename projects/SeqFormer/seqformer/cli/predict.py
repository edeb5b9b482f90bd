"""Segments and tracks the instances of a video.

    seqformer predict video.mp4 --output output/video.mp4 --model released/seqformer_R50_joint
    seqformer predict street.mp4 --output output/street.mp4
    seqformer predict camera:0 --output output/camera.mp4
    seqformer predict street.mp4 --html output/street.html
    seqformer predict 'videos/*.mp4' --output results
    torchrun --nproc_per_node 4 --no-python seqformer predict 'videos/*.mp4' --output results

The input is a video, a folder or glob pattern of frames, picture files, a camera or an address. The output is
an .mp4 file or a folder of pictures, with the instances drawn. Results are saved as YouTube-VIS JSON next to
the .mp4 file, or in the folder. --html also writes a page, a single file for any browser, to explore the
video and what the model attends to.

With several videos, each gets its own output. Finished videos are skipped, and a video that fails does not
stop the others.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from detectron2.config import CfgNode
from tqdm import tqdm

from seqformer.checkpoints import trust_checkpoints
from seqformer.cli.many_videos import several_videos, shared_out, targets_of
from seqformer.cli.model import MODEL_FLAGS, add_model_arguments, load_model_config, say_notice
from seqformer.cli.program import program
from seqformer.cli.streaming_job import StreamingJob
from seqformer.cli.whole_video import WrittenVideo, track_video
from seqformer.engine import keep_freed_memory
from seqformer.errors import InputError, name_flags
from seqformer.inference import VideoPredictor, classes
from seqformer.page import check_page
from seqformer.video import FrameSource, open_source
from seqformer.visualization.rows import check_threshold

__all__ = ["add_arguments", "main", "run"]

DEFAULT_THRESHOLD = 0.4

_INTERRUPTED = 130  # exit code, 128 + SIGINT
_FLAGS = {
    "output": "--output",
    "overwrite": "--overwrite",
    "resume": "--resume",
    "threshold": "--confidence-threshold",
    **MODEL_FLAGS,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "videos",
        nargs="*",
        default=[],
        metavar="PATH",
        help="a video, a folder or quoted glob pattern of frames, pictures (in natural order), a camera "
        "(camera:0) or an address (rtsp://..., http://...); or several videos, or a quoted pattern of videos",
    )
    source.add_argument("--input", nargs="+", metavar="PATH", help="the same as PATH")
    source.add_argument("--video-input", metavar="FILE", help="a video, as in Detectron2's demo")
    source.add_argument("--webcam", action="store_true", help="the same as --input camera:0")
    parser.add_argument(
        "--output",
        metavar="PATH",
        help="an .mp4 file, or a folder for pictures or for several videos (default: output/INPUT_NAME.mp4)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace existing files; without it, only the output of the same input is replaced",
    )
    parser.add_argument(
        "--confidence-threshold",
        type=float,
        default=DEFAULT_THRESHOLD,
        metavar="SCORE",
        help="minimum score of the instances to draw; the JSON file has all (default: %(default)s)",
    )
    parser.add_argument(
        "--html",
        metavar="FILE",
        help="also write a page to explore one video: instances, sampling points, temporal weights",
    )
    parser.add_argument(
        "--streaming",
        action="store_true",
        help="track clip by clip and write each frame as soon as it is final: memory use does not grow with "
        "video length, a killed run leaves valid files, and drawn scores are the current ones (cameras and "
        "addresses are always streamed)",
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue an interrupted --streaming run, with the same ids"
    )
    parser.add_argument(
        "--display", action="store_true", help="stream, and show the drawn frames in a window"
    )


def with_progress(frames: Iterable[np.ndarray], total: int | None, what: str) -> Iterable[np.ndarray]:
    """Yields the frames, and shows a progress bar if stderr is a terminal."""
    done = " {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} frames, {rate_noinv_fmt}, {remaining} left"
    form = "{desc}" + (done if total else " {n_fmt} frames, {rate_noinv_fmt}")
    return tqdm(frames, what, total, unit=" frames", bar_format=form, disable=None, dynamic_ncols=True)


def run(args: argparse.Namespace) -> int | None:
    """Runs the command. Returns an exit code if it is interrupted or videos fail.

    Raises:
        InputError: if the input, the model or the output cannot be used.
    """
    try:
        with name_flags(_FLAGS), trust_checkpoints(args.trust_checkpoint):
            return _run(args)
    except KeyboardInterrupt:
        print("\ninterrupted; finished files are kept, unfinished ones are removed", file=sys.stderr)
        return _INTERRUPTED


def _run(args: argparse.Namespace) -> int | None:
    check_threshold(args.confidence_threshold)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("seqformer").setLevel(logging.INFO)
    cfg = load_model_config(args)
    if cfg.MODEL.DEVICE == "cpu":
        keep_freed_memory()
    inputs = args.videos or args.input or []
    if videos := several_videos(inputs):
        if args.html:
            raise InputError(f"--html is for one video, but there are {len(videos)}: run them one by one")
        say_notice(args, videos)
        return _many_videos(args, cfg, videos)
    with open_source("camera:0" if args.webcam else inputs or args.video_input) as source:
        if args.resume and not source.paths:
            raise InputError(f"--resume: '{source.name}' is a live source and cannot be resumed")
        if args.html and (args.streaming or args.resume or args.display or not source.paths):
            raise InputError(
                "--html needs the whole video: it cannot be used with a camera or address, --streaming, "
                "--resume or --display"
            )
        say_notice(args, source.paths)
        output = Path(args.output or Path("output") / f"{source.name}.mp4")
        _one_video(args, cfg, source, output, lambda: VideoPredictor(cfg))
    return None


def _many_videos(args: argparse.Namespace, cfg: CfgNode, videos: Sequence[Path]) -> int | None:
    """Processes several videos. Skips finished ones and resumes interrupted ones."""
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
            with name_flags(_FLAGS), open_source(str(video)) as source:
                _one_video(args, cfg, source, target, lambda: predictor)

        failures = share.run(targets, track)
    if failures and not share.rank:
        print(f"{len(failures)} of {len(videos)} videos failed:", file=sys.stderr)
        for video, reason in failures:
            print(f"  {video}: {reason}", file=sys.stderr)
    return 1 if failures else None


def _one_video(
    args: argparse.Namespace,
    cfg: CfgNode,
    source: FrameSource,
    output: Path,
    make_predictor: Callable[[], VideoPredictor],
) -> None:
    start = time.perf_counter()
    names, ids = classes(cfg)
    written: WrittenVideo
    if args.streaming or args.resume or args.display or not source.paths:
        job = StreamingJob(
            output,
            source,
            class_names=names,
            category_ids=ids,
            threshold=args.confidence_threshold,
            resume=args.resume,
            overwrite=args.overwrite,
            show=_show_frame if args.display else None,
        )
        written = _stream(job, make_predictor())
    else:
        if args.html:
            _check_html(args.html, source, output, cfg)
        written = track_video(
            make_predictor,
            source,
            output,
            class_names=names,
            category_ids=ids,
            threshold=args.confidence_threshold,
            page=args.html,
            overwrite=args.overwrite,
            progress=with_progress,
        )
    seconds = time.perf_counter() - start
    if written.problem:
        print(f"warning: {written.problem}", file=sys.stderr)
    instances = f"{written.num_instances} instances with a score of at least {args.confidence_threshold:g}"
    print(f"{instances} in {written.length} frames, {seconds:.1f} seconds")
    print(*(path for path in (written.output, written.results, args.html) if path), sep="\n")


def _stream(job: StreamingJob, predictor: VideoPredictor) -> WrittenVideo:
    stream = predictor.stream(clip_matching=True)
    try:
        return job.run(stream, with_progress)
    except KeyboardInterrupt:
        print(f"\ninterrupted after {stream.num_final} frames, which are in '{job.output}'", file=sys.stderr)
        print("the same command with --resume continues from there", file=sys.stderr)
        sys.exit(_INTERRUPTED)


def _check_html(html: str, source: FrameSource, output: Path, cfg: CfgNode) -> None:
    """Checks before tracking that the page can be written.

    Raises:
        InputError: if it cannot be written.
    """
    options = cfg.MODEL.SeqFormer
    cut = options.CLIP_MATCHING and not options.AUTO_MEMORY_GB  # which may choose one clip
    check_page(html, source.length, clip_matching=cut)
    if os.path.exists(html) and any(os.path.samefile(html, path) for path in source.paths):
        raise InputError(f"--html '{html}' is the input: choose another name")
    if Path(html).resolve().is_relative_to(output.resolve()):
        raise InputError(f"--html '{html}' is in the folder of pictures: choose another folder")


def _show_frame(frame: np.ndarray) -> None:
    """Shows an RGB frame in a window.

    Raises:
        InputError: if OpenCV cannot open windows.
    """
    try:
        cv2.imshow("SeqFormer", frame[..., ::-1])
        cv2.waitKey(1)
    except cv2.error as error:
        raise InputError(
            "--display: this OpenCV cannot open windows; install opencv-python, not opencv-python-headless"
        ) from error


main = program(add_arguments, run, __doc__)
