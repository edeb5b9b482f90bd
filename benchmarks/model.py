"""Measures time by stage, peak memory and arithmetic rate of the network on one video, with random weights.

    python benchmarks/model.py --config-file configs/ytvis19/seqformer_R50.yaml --frames 5 --size 360x640
    python benchmarks/model.py --device cuda --precision bf16 --frames 36

The rate is compared with the device's own matrix products, measured in the same run at the same precision.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from statistics import median
from typing import Any

import seqformer  # noqa: F401  before Detectron2, to hide one of its warnings

# isort: split
import torch
from detectron2.modeling import build_model
from timing import PRECISIONS, device_name, matmul_rate, peak_memory, precision, synchronise
from torch.utils.flop_counter import FlopCounterMode

from seqformer import SeqFormer
from seqformer.config import load_config
from seqformer.errors import InputError, exit_on_bad_input
from seqformer.ops import implementation


class Stopwatch:
    """Adds up the time of wrapped functions. It waits for the device after each, which costs a GPU time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, float] = defaultdict(float)

    def wrap(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            synchronise(self._device)
            start = time.perf_counter()
            result = function(*args, **kwargs)
            synchronise(self._device)
            self.seconds[stage] += time.perf_counter() - start
            return result

        return timed

    @staticmethod
    def _stages(model: SeqFormer) -> list[tuple[str, Any, str]]:
        """Names of the stages, and the objects and methods that do them."""
        network = model.network
        return [
            ("backbone", network.detr, "features"),
            ("encoder", network.detr.transformer, "encode"),
            ("mask features", network.mask_head, "forward"),
            ("decoder", network, "decode"),
            ("masks", network, "masks"),
        ]

    def attach(self, model: SeqFormer) -> None:
        """Times the model's stages from now on."""
        for stage, part, method in self._stages(model):
            setattr(part, method, self.wrap(stage, getattr(part, method)))

    def detach(self, model: SeqFormer) -> None:
        """Leaves the model as it was."""
        for _, part, method in self._stages(model):
            delattr(part, method)


def random_video(num_frames: int, height: int, width: int) -> list[dict[str, Any]]:
    """Returns the model's input: one video of noise."""
    frames = [torch.randint(0, 256, (3, height, width), dtype=torch.uint8) for _ in range(num_frames)]
    return [{"image": frames, "height": height, "width": width}]


def run(args: argparse.Namespace) -> None:
    try:
        height, width = (int(side) for side in args.size.split("x"))
    except ValueError:
        raise InputError(f"--size {args.size}: must be HEIGHTxWIDTH") from None
    device = torch.device(args.device)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    cfg = load_config(args.config_file, ["MODEL.DEVICE", args.device, *args.opts])
    model = build_model(cfg).eval().requires_grad_(False)
    video = random_video(args.frames, height, width)
    before = peak_memory(device)

    with precision(args.precision, device):
        model(video)
        stopwatch = Stopwatch(device)
        stopwatch.attach(model)
        totals, stages = [], []
        for _ in range(args.repeats):
            stopwatch.seconds.clear()
            start = time.perf_counter()
            model(video)
            totals.append(time.perf_counter() - start)
            stages.append(dict(stopwatch.seconds))
        memory = peak_memory(device)
        with FlopCounterMode(display=False) as counter:
            model(video)
    rate = counter.get_total_flops() / median(totals)
    machine = matmul_rate(device, args.precision)

    place = f"{device_name(device)}, {args.threads} threads, {args.precision}"
    print(f"{args.config_file}: {args.frames} frames of {height}x{width}, {place}")
    print(f"deformable attention: {implementation()}; torch {torch.__version__}; {args.repeats} repeats")
    print("\n| stage | seconds (median) |\n|---|---|")
    digits = 2 if device.type == "cpu" else 4
    for stage in stages[0]:
        print(f"| {stage} | {median(s[stage] for s in stages):.{digits}f} |")
    rest = median(t - sum(s.values()) for t, s in zip(totals, stages, strict=True))
    print(f"| rest: selection, masks at the output's size | {rest:.{digits}f} |")
    span = f"from {min(totals):.{digits}f} to {max(totals):.{digits}f}"
    print(f"| all | {median(totals):.{digits}f} ({span}) |")
    print(f"\npeak memory {memory:.2f} GB, of which {before:.2f} GB before the first video")
    print(
        f"{counter.get_total_flops() / 1e9:.0f} GFLOP in matrix products and convolutions: "
        f"{rate / 1e9:.0f} GFLOP/s, {100 * rate / machine:.0f} % of this device's matrix multiplication "
        f"({machine / 1e9:.0f} GFLOP/s)"
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", default="configs/ytvis19/seqformer_R50.yaml")
    parser.add_argument("--frames", type=int, default=5)
    parser.add_argument("--size", default="360x640", metavar="HxW")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="bf16 and fp16 are autocast")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE")
    args = parser.parse_args(argv)
    with exit_on_bad_input():
        run(args)


if __name__ == "__main__":
    main()
