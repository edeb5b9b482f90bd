"""Time and peak memory of a training step, next to the inference of the same frames.

    python benchmarks/training.py --config-file configs/ytvis19/seqformer_R50.yaml --instances 5 40

Weights and frames are random. Every row is measured in a process of its own, so that its peak memory is its
own: that of the process on a CPU, that of tensors on a GPU.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import get_context
from statistics import median
from typing import Any

import seqformer  # noqa: F401  before Detectron2, to hide one of its warnings

# isort: split
import torch
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Instances
from model import random_video, sides_of
from tabulate import tabulate
from timing import (
    PRECISIONS,
    device_name,
    peak_memory,
    precision,
    reset_peak_memory,
    seconds_of,
    synchronise,
)

from seqformer import SeqFormer
from seqformer.config import load_config
from seqformer.engine import keep_freed_memory
from seqformer.errors import exit_on_bad_input

_PREFIX = "MODEL.SeqFormer"
_VARIANTS = {
    "dense losses": {},
    "losses on points": {"TRAIN_NUM_POINTS": "POINTS"},
    "dense, checkpointing": {"GRADIENT_CHECKPOINTING": "True"},
    "points, checkpointing": {"TRAIN_NUM_POINTS": "POINTS", "GRADIENT_CHECKPOINTING": "True"},
}


def training_batch(
    batch: int, num_frames: int, height: int, width: int, num_instances: int
) -> list[dict[str, Any]]:
    """Returns videos of noise with instances that are boxes and move to the right."""
    videos = random_video(num_frames, height, width) * batch
    for number in range(batch):
        instances = []
        for t in range(num_frames):
            masks = torch.zeros(num_instances, height, width, dtype=torch.bool)
            for i in range(num_instances):
                top, left = height * i // (num_instances + 3), width * i // (num_instances + 3) + 4 * t
                masks[i, top : top + height // 4, left : left + width // 4] = True
            frame = Instances((height, width))
            frame.gt_masks = BitMasks(masks)
            frame.gt_boxes = frame.gt_masks.get_bounding_boxes()
            frame.gt_classes = torch.arange(num_instances)
            frame.gt_ids = torch.arange(num_instances)
            instances.append(frame)
        videos[number] = {**videos[number], "instances": instances}
    return videos


def training_step(
    model: SeqFormer,
    optimizer: torch.optim.Optimizer,
    videos: list[dict[str, Any]],
    name: str,
    device: torch.device,
) -> list[float]:
    """Returns the seconds of the forward pass, of the backward pass and of the optimizer.

    Raises:
        FloatingPointError: if the loss is not finite.
    """
    times = [time.perf_counter()]

    def mark() -> None:
        synchronise(device)
        times.append(time.perf_counter())

    optimizer.zero_grad(set_to_none=True)
    with precision(name, device):
        loss = sum(model(videos).values())
    mark()
    with precision("tf32" if name == "tf32" else "fp32", device):
        loss.backward()
    mark()
    optimizer.step()
    mark()
    if not loss.isfinite():
        raise FloatingPointError(f"the loss is {loss.item()}")
    return [end - start for start, end in pairwise(times)]


@dataclass(frozen=True)
class _Row:
    """What is measured in one process.

    Attributes:
        args: the arguments of the program.
        options: config overrides; None for inference.
        instances: number in every video.
    """

    args: argparse.Namespace
    options: dict[str, str] | None
    instances: int

    def measure(self) -> tuple[list[float], float]:
        """Returns the medians of seconds in all and by part, and the peak memory in GB."""
        args, device = self.args, torch.device(self.args.device)
        torch.set_num_threads(args.threads)
        torch.manual_seed(0)
        if device.type == "cpu":
            keep_freed_memory()
        opts = ["MODEL.DEVICE", args.device, *args.opts]
        for key, value in (self.options or {}).items():
            opts += [f"{_PREFIX}.{key}", value]
        model = build_model(load_config(args.config_file, opts))
        videos = training_batch(args.batch, args.frames, *sides_of(args.size), self.instances)
        reset_peak_memory(device)
        if self.options is None:
            model.eval()
            with torch.no_grad(), precision(args.precision, device):
                seconds = seconds_of(
                    lambda: [model([video]) for video in videos], device, repeats=args.repeats
                )
            return [median(seconds)], peak_memory(device)
        model.train()
        optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-6)
        steps = [
            training_step(model, optimizer, videos, args.precision, device) for _ in range(args.repeats + 1)
        ]
        parts = [median(part) for part in zip(*steps[1:], strict=True)]
        return [median(map(sum, steps[1:])), *parts], peak_memory(device)


def run(args: argparse.Namespace) -> None:
    place = f"{device_name(torch.device(args.device))}, {args.threads} threads, {args.precision}"
    print(f"{args.config_file}: batches of {args.batch}, {args.frames} frames of {args.size}; {place}")
    print(f"torch {torch.__version__}; {args.repeats} repeats; {args.points} points\n", flush=True)
    rows: list[list[object]] = []
    whole = _alone(_Row(args, None, 1))
    rows.append(["inference", "", *map(_digits, whole[0]), *[""] * 4, _digits(whole[1])])
    for count in args.instances:
        for name in args.variants:
            options = {
                key: str(args.points) if value == "POINTS" else value
                for key, value in _VARIANTS[name].items()
            }
            seconds, memory = _alone(_Row(args, options, count))
            cells = [*map(_digits, seconds), f"{seconds[0] / whole[0][0]:.2f}", _digits(memory)]
            rows.append([name, count, *cells])
    header = ["", "instances", "s", "forward", "backward", "optimizer", "times inference", "peak GB"]
    print(tabulate(rows, header, "pipe", disable_numparse=True))


def _alone(row: _Row) -> tuple[list[float], float]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(row.measure).result()


def _digits(value: float) -> str:
    return f"{value:.2f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", default="configs/ytvis19/seqformer_R50.yaml")
    parser.add_argument("--variants", nargs="+", choices=list(_VARIANTS), default=list(_VARIANTS))
    parser.add_argument("--instances", type=int, nargs="+", default=[5], help="in every video")
    parser.add_argument("--points", type=int, default=3136, help="MODEL.SeqFormer.TRAIN_NUM_POINTS")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--frames", type=int, default=5)
    parser.add_argument("--size", default="360x640", metavar="HxW")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE")
    with exit_on_bad_input():
        run(parser.parse_args())
