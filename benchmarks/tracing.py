"""What tracing costs: the decoder without hooks, with them, and after them; and a whole trace.

    python benchmarks/tracing.py --config-file configs/ytvis19/seqformer_R50.yaml --frames 5 --size 360x640

Random weights. The variants take turns, so that a busy moment of the machine does not fall on one alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import seqformer  # noqa: F401  before Detectron2, one of whose warnings it hides

# isort: split
import torch
from detectron2.modeling import build_model

from seqformer.config import load_config
from seqformer.errors import InputError, exit_on_bad_input
from seqformer.inference import trace
from seqformer.inference.tracing import record_sampling


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


@torch.no_grad()
def run(args: argparse.Namespace) -> None:
    try:
        height, width = (int(side) for side in args.size.split("x"))
    except ValueError:
        raise InputError(f"--size {args.size}: give HEIGHTxWIDTH") from None
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    cfg = load_config(args.config_file, ["MODEL.DEVICE", "cpu", *args.opts])
    model = build_model(cfg).eval().requires_grad_(False)
    frames = [torch.randint(0, 256, (3, height, width), dtype=torch.uint8) for _ in range(args.frames)]
    video = [{"image": frames, "height": height, "width": width}]
    encoded = model.encode(frames)
    layers = model.network.detr.transformer.decoder.layers

    def decode() -> None:
        model.network.decode(encoded, args.frames)

    def decode_with_hooks() -> None:
        with record_sampling(layers):
            decode()

    variants = {
        "decoder, never traced": decode,
        "decoder, hooks on": decode_with_hooks,
        "decoder, hooks off again": decode,
        "whole video, results alone": lambda: model(video),
        "whole video, trace": lambda: trace(model, frames),
    }
    first = [seconds(decode) for _ in range(args.repeats + 1)][1:]  # before any hook was there
    times = {name: [] for name in variants} | {"decoder, never traced": first}
    for repeat in range(args.repeats + 1):
        for name, variant in list(variants.items())[1:]:
            taken = seconds(variant)
            if repeat:  # the first warms up
                times[name].append(taken)
    print(f"{args.config_file}: {args.frames} frames of {height}x{width}, {args.threads} threads")
    print(f"median of {args.repeats}\n\n| | seconds |\n|---|---|")
    for name, taken in times.items():
        print(f"| {name} | {median(taken):.3f} (from {min(taken):.3f} to {max(taken):.3f}) |")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", default="configs/ytvis19/seqformer_R50.yaml")
    parser.add_argument("--frames", type=int, default=5)
    parser.add_argument("--size", default="360x640", metavar="HxW")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE")
    args = parser.parse_args(argv)
    with exit_on_bad_input():
        run(args)


if __name__ == "__main__":
    main()
