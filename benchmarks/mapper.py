"""Compares the training clips per second from data loading with the speed of the training step.

    python benchmarks/mapper.py --config-file configs/ytvis19/seqformer_R50.yaml --workers 2

Frames are synthetic: JPEG, 360x640 pixels, 4 shapes on noise. ``--pseudo`` measures clips made of warped
images instead of videos. Loading is not a bottleneck if it yields more clips per second than the step needs.
The two are measured one after the other.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import seqformer  # noqa: F401  before Detectron2, to hide one of its warnings

# isort: split
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model

from seqformer.config import load_config
from seqformer.data import build_train_loader, load_ytvis_json
from seqformer.data.toy import make_toy_dataset
from seqformer.errors import InputError, exit_on_bad_input

_NAME = "mapper_benchmark"


def register(root: Path, args: argparse.Namespace) -> None:
    """Creates the videos and registers them, or their frames as images."""
    json_file, _, frames = make_toy_dataset(
        root, num_train=args.videos, num_val=1, length=args.length, size=args.size, instances=4
    )

    def images() -> list[dict[str, Any]]:
        return [
            {
                "file_name": name,
                "height": video["height"],
                "width": video["width"],
                "image_id": name,
                "annotations": annotations,
            }
            for video in load_ytvis_json(json_file, frames, _NAME)
            for name, annotations in zip(video["file_names"], video["annotations"], strict=True)
        ]

    DatasetCatalog.register(
        _NAME, images if args.pseudo else lambda: load_ytvis_json(json_file, frames, _NAME)
    )


def loading_rate(cfg: CfgNode, batches: int) -> tuple[float, list[dict[str, Any]]]:
    """Returns the clips per second after the first batches, and the last batch."""
    loader = iter(build_train_loader(cfg))
    for _ in range(2 * max(cfg.DATALOADER.NUM_WORKERS, 1) + 1):  # prefetched batches do not count
        next(loader)
    start = time.perf_counter()
    for batch in islice(loader, batches):
        last = batch
    return batches * cfg.SOLVER.IMS_PER_BATCH / (time.perf_counter() - start), last


def step_seconds(cfg: CfgNode, batch: list[dict[str, Any]], repeats: int) -> float:
    """Returns the median time of losses and gradients for a batch."""
    model = build_model(cfg).train()
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        sum(model(batch).values()).backward()
        if model.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
        model.zero_grad()
    return median(times[1:])


def run(args: argparse.Namespace) -> None:
    cfg = load_config(args.config_file, args.opts)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TRAIN_RATIOS = (_NAME,), ()
    cfg.DATALOADER.NUM_WORKERS = args.workers
    cfg.SOLVER.IMS_PER_BATCH = args.batch
    cfg.MODEL.WEIGHTS = ""
    cfg.SEED = 0
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        register(Path(folder), args)
        rate, batch = loading_rate(cfg, args.batches)
    frames, size = len(batch[0]["image"]), "x".join(map(str, args.size))
    kind = "images as clips" if args.pseudo else "videos"
    print(f"{args.config_file}: {kind} of {size}, {frames} frames a clip, batch of {args.batch}")
    print(f"loading, {args.workers} workers: {rate:.2f} clips/s")
    if args.repeats:
        seconds = step_seconds(cfg, batch, args.repeats)
        needed = args.batch / seconds
        print(f"step on {cfg.MODEL.DEVICE}, without the optimizer: {seconds:.2f} s = {needed:.2f} clips/s")
        print(f"loading is {rate / needed:.1f} times as fast as the step")


def _size(text: str) -> tuple[int, int]:
    try:
        height, width = (int(side) for side in text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not HEIGHTxWIDTH") from None
    return height, width


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", default="configs/ytvis19/seqformer_R50.yaml")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1, help="clips per step")
    parser.add_argument("--batches", type=int, default=40, help="batches to load")
    parser.add_argument("--repeats", type=int, default=5, help="steps to time; 0 measures loading only")
    parser.add_argument("--size", type=_size, default=(360, 640), metavar="HxW", help="size of the frames")
    parser.add_argument("--videos", type=int, default=8)
    parser.add_argument("--length", type=int, default=20, help="frames per video")
    parser.add_argument("--pseudo", action="store_true", help="use images as clips instead of videos")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config overrides")
    args = parser.parse_args(argv)
    with exit_on_bad_input():
        if min(args.batch, args.batches, args.videos, args.length) < 1 or args.workers < 0:
            raise InputError("--batch, --batches, --videos and --length must be at least 1")
        run(args)


if __name__ == "__main__":
    main()
