"""Measures time and memory of the evaluation on synthetic videos.

    python benchmarks/evaluator.py --videos 300 --predictions 50

Every video has moving blobs of several categories as instances. Predictions are copies of instances, shifted
by a few pixels. Another process creates both and writes them as JSON. The steps of ``seqformer evaluate`` are
timed: reading and checking the files, AP, and all other metrics. Memory is the peak of the process.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from seqformer.errors import InputError, exit_on_bad_input
from seqformer.evaluation.tracking_metrics import TrackingCounts, count_tracklets
from seqformer.evaluation.tracklets import read_tracklets
from seqformer.evaluation.ytvis import average_precision
from seqformer.formats.rle import encode_masks

CATEGORIES = 40
INSTANCES = 4  # per video
VARIANTS = 3  # shifted copies of an instance that predictions are drawn from


def make_case(args: argparse.Namespace, folder: Path) -> tuple[Path, Path]:
    """Writes ground truth and results, and returns their paths."""
    rng = np.random.default_rng(args.seed)
    videos, annotations, results = [], [], []
    names = [f"{t:05d}.jpg" for t in range(args.frames)]
    for video in range(1, args.videos + 1):
        videos.append({"id": video, "height": args.size[0], "width": args.size[1], "file_names": names})
        tracklets = [blob(rng, args.frames, args.size) for _ in range(INSTANCES)]
        categories = rng.integers(1, CATEGORIES + 1, INSTANCES).tolist()
        for masks, category in zip(tracklets, categories, strict=True):
            annotation = {"id": len(annotations) + 1, "video_id": video, "category_id": category}
            annotations.append(annotation | {"iscrowd": 0, "segmentations": encode_masks(masks)})
        shifts = rng.integers(-12, 13, (INSTANCES, VARIANTS, 2)).tolist()
        shifted = [
            [encode_masks(np.roll(masks, shift, axis=(1, 2))) for shift in own]
            for masks, own in zip(tracklets, shifts, strict=True)
        ]
        for _ in range(args.predictions):
            n, variant = int(rng.integers(INSTANCES)), int(rng.integers(VARIANTS))
            right = rng.random() < 0.5
            result = {"video_id": video, "score": float(rng.random()), "segmentations": shifted[n][variant]}
            result["category_id"] = categories[n] if right else int(rng.integers(1, CATEGORIES + 1))
            results.append(result)
    named = [{"id": n, "name": f"category {n}"} for n in range(1, CATEGORIES + 1)]
    paths = folder / "ground_truth.json", folder / "results.json"
    gt = {"videos": videos, "categories": named, "annotations": annotations}
    for path, content in zip(paths, (gt, results), strict=True):
        path.write_text(json.dumps(content))
    return paths


def blob(rng: np.random.Generator, frames: int, size: tuple[int, int]) -> np.ndarray:
    """Returns a moving ellipse with a wavy edge, (T, H, W) bool."""
    y, x = np.mgrid[: size[0], : size[1]]
    radius = rng.uniform(0.1, 0.3) * size[0]
    start, end = (rng.uniform(0.1, 0.9, 2) * size for _ in range(2))
    masks = np.empty((frames, *size), dtype=bool)
    for mask, (top, left) in zip(masks, np.linspace(start, end, frames), strict=True):
        angle = np.arctan2(y - top, x - left)
        mask[:] = np.hypot(y - top, 0.7 * (x - left)) < radius * (1 + 0.1 * np.sin(9 * angle))
    return masks


def peak_memory() -> float:
    """Returns the peak memory of this process, MB."""
    scale = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e6


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - start


def run(args: argparse.Namespace) -> None:
    if min(args.videos, args.predictions, args.frames) < 1:
        raise InputError("--videos, --predictions and --frames must be at least 1")
    with tempfile.TemporaryDirectory() as folder:
        with get_context("spawn").Pool(1) as pool:
            paths = pool.apply(make_case, (args, Path(folder)))
        sizes = [path.stat().st_size / 1e6 for path in paths]
        before = peak_memory()
        tracklets, reading = timed(read_tracklets, *paths)
    figures, precision = timed(average_precision, tracklets)
    counts, following = timed(count_tracklets, tracklets)
    hota = sum(counts.values(), TrackingCounts()).figures()["HOTA"]
    size = f"{args.size[0]}x{args.size[1]}"
    print(f"{args.videos} videos of {args.frames} frames of {size}")
    print(f"{INSTANCES} instances and {args.predictions} predictions in each")
    average = figures.overall["AP"]
    print(f"ground truth {sizes[0]:.0f} MB, results {sizes[1]:.0f} MB; AP {average:.2f}, HOTA {hota:.2f}")
    print("\n| step | seconds |\n|---|---|")
    print(f"| read and check | {reading:.2f} |\n| AP | {precision:.2f} |")
    print(f"| HOTA, CLEAR, Identity | {following:.2f} |")
    print(f"| all | {reading + precision + following:.2f} |")
    print(f"\npeak memory {peak_memory():.0f} MB, {before:.0f} MB of it before reading")


def parse_size(text: str) -> tuple[int, int]:
    try:
        height, width = (int(side) for side in text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not HEIGHTxWIDTH") from None
    return height, width


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, default=300)
    parser.add_argument("--predictions", type=int, default=50, help="predictions per video")
    parser.add_argument("--frames", type=int, default=20, help="frames per video")
    parser.add_argument("--size", type=parse_size, default=(360, 640), metavar="HxW")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    with exit_on_bad_input():
        run(args)


if __name__ == "__main__":
    main()
