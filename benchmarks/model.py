"""Measures time by stage, peak memory and arithmetic rate of the network on one video, with random weights.

    python benchmarks/model.py --config-file configs/ytvis19/seqformer_R50.yaml --frames 5 --size 360x640

The rate is compared with the machine's own fp32 matrix multiplication, measured in the same run.
"""

from __future__ import annotations

import argparse
import platform
import resource
import time
from collections import defaultdict
from collections.abc import Callable
from statistics import median
from typing import Any

import seqformer  # noqa: F401  before Detectron2, to hide one of its warnings

# isort: split
import torch
from detectron2.modeling import build_model
from torch.utils.flop_counter import FlopCounterMode

from seqformer import SeqFormer
from seqformer.config import load_config
from seqformer.errors import InputError, exit_on_bad_input
from seqformer.ops import implementation

_MATRIX = 2048


class Stopwatch:
    """Adds up the time of wrapped functions."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def wrap(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = function(*args, **kwargs)
            self.seconds[stage] += time.perf_counter() - start
            return result

        return timed

    def attach(self, model: SeqFormer) -> None:
        """Times the model's stages from now on."""
        network = model.network
        queries, transformer = network.detr, network.detr.transformer
        queries.features = self.wrap("backbone", queries.features)
        transformer.encode = self.wrap("encoder", transformer.encode)
        network.mask_head.forward = self.wrap("mask features", network.mask_head.forward)
        network.decode = self.wrap("decoder", network.decode)
        network.masks = self.wrap("masks", network.masks)


def matmul_rate() -> float:
    """Returns the machine's fp32 matrix multiplication rate, operations per second, best of ten."""
    a, b = torch.randn(_MATRIX, _MATRIX), torch.randn(_MATRIX, _MATRIX)
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2 * _MATRIX**3 / best


def peak_memory() -> float:
    """Returns the peak memory of this process, GB."""
    scale = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e9


def run(args: argparse.Namespace) -> None:
    try:
        height, width = (int(side) for side in args.size.split("x"))
    except ValueError:
        raise InputError(f"--size {args.size}: must be HEIGHTxWIDTH") from None
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    cfg = load_config(args.config_file, ["MODEL.DEVICE", "cpu", *args.opts])
    model = build_model(cfg).eval().requires_grad_(False)
    frames = [torch.randint(0, 256, (3, height, width), dtype=torch.uint8) for _ in range(args.frames)]
    video = [{"image": frames, "height": height, "width": width}]
    before = peak_memory()

    model(video)
    stopwatch = Stopwatch()
    stopwatch.attach(model)
    totals, stages = [], []
    for _ in range(args.repeats):
        stopwatch.seconds.clear()
        start = time.perf_counter()
        model(video)
        totals.append(time.perf_counter() - start)
        stages.append(dict(stopwatch.seconds))
    memory = peak_memory()
    with FlopCounterMode(display=False) as counter:
        model(video)
    rate = counter.get_total_flops() / median(totals)
    machine = matmul_rate()

    print(f"{args.config_file}: {args.frames} frames of {height}x{width}, {args.threads} threads, fp32")
    print(f"deformable attention: {implementation()}; torch {torch.__version__}; {args.repeats} repeats")
    print("\n| stage | seconds (median) |\n|---|---|")
    for stage in stages[0]:
        print(f"| {stage} | {median(s[stage] for s in stages):.2f} |")
    rest = median(t - sum(s.values()) for t, s in zip(totals, stages, strict=True))
    print(f"| rest: selection, masks at the output's size | {rest:.2f} |")
    print(f"| all | {median(totals):.2f} (from {min(totals):.2f} to {max(totals):.2f}) |")
    print(f"\npeak memory {memory:.2f} GB, of which {before:.2f} GB before the first video")
    print(
        f"{counter.get_total_flops() / 1e9:.0f} GFLOP in matrix products and convolutions: "
        f"{rate / 1e9:.0f} GFLOP/s, {100 * rate / machine:.0f} % of this machine's matrix multiplication "
        f"({machine / 1e9:.0f} GFLOP/s)"
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", default="configs/ytvis19/seqformer_R50.yaml")
    parser.add_argument("--frames", type=int, default=5)
    parser.add_argument("--size", default="360x640", metavar="HxW")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE")
    args = parser.parse_args(argv)
    with exit_on_bad_input():
        run(args)


if __name__ == "__main__":
    main()
