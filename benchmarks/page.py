"""Measures the cost of a page: tracking with tracing off and on, building the page, and its size.

    python benchmarks/page.py --input demo/assets/street.mp4 --frames 145

By default the shipped pedestrian model is used. Variants run in turns, so that other load on the machine
affects both.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import islice
from pathlib import Path
from statistics import median

import seqformer  # noqa: F401  before Detectron2, to hide one of its warnings

# isort: split
import torch

from seqformer.errors import InputError, exit_on_bad_input
from seqformer.inference import ClipTracer, VideoPredictor, classes, model_config
from seqformer.model_zoo import SHIPPED_MODEL, get_config_file
from seqformer.page.write import write_page
from seqformer.video import open_source


def run(args: argparse.Namespace) -> None:
    if args.frames < 1 or args.repeats < 1:
        raise InputError("--frames and --repeats must be at least 1")
    torch.set_num_threads(args.threads)
    cfg = model_config(args.config_file, args.weights, args.opts)
    predictor = VideoPredictor(cfg)
    source = open_source(args.input)
    with source:
        timed = [(frame, source.time) for frame in islice(source, args.frames)]
    frames, times = [frame for frame, _ in timed], [time for _, time in timed]
    predictor(frames[: cfg.MODEL.SeqFormer.CLIP_LENGTH])  # warm-up
    off, on = [], []
    for _ in range(args.repeats):
        start = time.perf_counter()
        predictor(frames)
        off.append(time.perf_counter() - start)
        start = time.perf_counter()
        with ClipTracer(predictor.network) as tracer:
            result = predictor(frames, observer=tracer)
        on.append(time.perf_counter() - start)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "page.html")
        start = time.perf_counter()
        write_page(
            path,
            frames,
            result,
            result.best_tracklets(),
            tracer,
            classes(cfg)[0],
            title=source.name,
            times=times,
            threshold=0.4,
        )
        built, size = time.perf_counter() - start, path.stat().st_size
    print(f"{source.name}: {len(frames)} frames of {source.width}x{source.height}, {args.threads} threads")
    print(f"median of {args.repeats}\n\n| | |\n|---|---|")
    print(f"| tracking, tracing off | {median(off):.2f} s |\n| tracking, tracing on | {median(on):.2f} s |")
    print(f"| overhead of tracing | {100 * (median(on) / median(off) - 1):.1f} % |")
    print(f"| building the page, once | {built:.2f} s |\n| its size | {size / 1e6:.2f} MB |")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", default="demo/assets/street.mp4", metavar="PATH")
    parser.add_argument("--config-file", default=str(get_config_file(SHIPPED_MODEL)), metavar="FILE")
    parser.add_argument("--weights", metavar="FILE")
    parser.add_argument("--frames", type=int, default=145)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE")
    args = parser.parse_args(argv)
    with exit_on_bad_input():
        run(args)


if __name__ == "__main__":
    main()
