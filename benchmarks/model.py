"""Profiles the network on one video: time, arithmetic and memory traffic by stage and by operator.

    python benchmarks/model.py --config-file configs/ytvis19/seqformer_R50.yaml --frames 5 --size 360x640
    python benchmarks/model.py --frames 10 --clips 5x1
    python benchmarks/model.py --config-file configs/pedestrians/seqformer_effnet_lite0.yaml \\
        --video demo/assets/street.mp4 --frames 24
    python benchmarks/model.py --device cuda --precision bf16 --frames 36

Without --video, frames are noise and weights random. Rates are compared with the device's own matrix products
and copies, measured in the same run at the same precision. Bytes are those of every operator's inputs and
outputs, whether they come from memory or from a cache.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from statistics import median
from typing import Any

import seqformer  # noqa: F401  before Detectron2, to hide one of its warnings

# isort: split
import torch
from detectron2.modeling import build_model
from timing import (
    PRECISIONS,
    copy_bandwidth,
    device_name,
    matmul_rate,
    peak_memory,
    precision,
    synchronise,
)
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, register_flop_formula

from seqformer import SeqFormer, VideoPredictor
from seqformer.config import load_config
from seqformer.engine import keep_freed_memory
from seqformer.errors import InputError, exit_on_bad_input
from seqformer.inference.setup import model_config
from seqformer.ops import implementation
from seqformer.video import open_source

_REST = "rest: selection, matching, masks at the output's size"
_SHOWN = 12  # operators in the table


def _linear_flops(x_shape: Any, weight_shape: Any, *_: Any, **__: Any) -> int:
    rows = torch.Size(x_shape[:-1]).numel()
    return 2 * rows * weight_shape[0] * weight_shape[1]


def register_formulas() -> None:
    """Tells PyTorch's counter of operations what it does not know."""
    if torch.backends.mkldnn.is_available() and torch.ops.mkldnn._linear_pointwise not in flop_registry:
        register_flop_formula(torch.ops.mkldnn._linear_pointwise)(_linear_flops)


class Operators(TorchDispatchMode):
    """Adds up seconds, operations and bytes by stage and operator. It waits for the device after each."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        register_formulas()
        self._device = device
        self.stage = _REST
        self.seconds: Counter[tuple[str, str]] = Counter()
        self.flops: Counter[tuple[str, str]] = Counter()
        self.bytes: Counter[tuple[str, str]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        synchronise(self._device)
        start = time.perf_counter()
        result = func(*args, **kwargs)
        synchronise(self._device)
        key = self.stage, str(func.overloadpacket)
        self.seconds[key] += time.perf_counter() - start
        formula = flop_registry.get(func.overloadpacket)
        self.flops[key] += formula(*args, **kwargs, out_val=result) if formula else 0
        if not func.is_view:
            tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor)]
            self.bytes[key] += sum(x.nbytes for x in tensors)
        return result

    def of(self, stage: str | None = None, operator: str | None = None) -> tuple[float, int, int]:
        """Returns seconds, operations and bytes of a stage, of an operator, or of all."""
        keys = [k for k in self.seconds if stage in (None, k[0]) and operator in (None, k[1])]
        return tuple(sum(counter[k] for k in keys) for counter in (self.seconds, self.flops, self.bytes))


class Stopwatch:
    """Adds up the time of wrapped functions. It waits for the device after each, which costs a GPU time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self.operators: Operators | None = None  # told the stage, if any

    def wrap(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            synchronise(self._device)
            start = time.perf_counter()
            if self.operators:
                self.operators.stage = stage
            result = function(*args, **kwargs)
            if self.operators:
                self.operators.stage = _REST
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


def sides_of(size: str) -> tuple[int, int]:
    """Returns height and width of "HEIGHTxWIDTH".

    Raises:
        InputError: if it is something else.
    """
    try:
        height, width = (int(side) for side in size.split("x"))
    except ValueError:
        raise InputError(f"--size {size}: must be HEIGHTxWIDTH") from None
    return height, width


def run(args: argparse.Namespace) -> None:
    height, width = sides_of(args.size)
    device = torch.device(args.device)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    keep_freed_memory()  # like seqformer predict
    opts = ["MODEL.DEVICE", args.device, *_clip_options(args.clips), *args.opts]
    if args.video:
        predictor = VideoPredictor(model_config(args.config_file, opts=opts))
        model, (height, width) = predictor.model, (0, 0)
        with open_source(args.video) as source:
            height, width = source.height, source.width
            images = [predictor.stream().prepare(frame) for frame in islice(source, args.frames)]
        video = [{"image": images, "height": height, "width": width}]
    else:
        model = build_model(load_config(args.config_file, opts)).eval()
        video = random_video(args.frames, height, width)
    model.requires_grad_(False)
    machine, bandwidth = matmul_rate(device, args.precision), 2 * copy_bandwidth(device)
    before = peak_memory(device)

    with precision(args.precision, device):
        model(video)
        with timed(model, device) as stopwatch:
            totals, stages = [], []
            for _ in range(args.repeats):
                stopwatch.seconds.clear()
                start = time.perf_counter()
                model(video)
                totals.append(time.perf_counter() - start)
                stages.append(dict(stopwatch.seconds))
            memory = peak_memory(device)
            with Operators(device) as operators:
                stopwatch.operators = operators
                model(video)
    machine = max(machine, matmul_rate(device, args.precision))  # in case others used the machine
    bandwidth = max(bandwidth, 2 * copy_bandwidth(device))

    frames, network_size = len(video[0]["image"]), "x".join(map(str, video[0]["image"][0].shape[1:]))
    cut = f"clips of {args.clips}" if args.clips else "one clip, unless the config says otherwise"
    place = f"{device_name(device)}, {args.threads} threads, {args.precision}"
    print(f"{args.config_file}: {frames} frames of {network_size}, {cut}; {place}")
    print(f"deformable attention: {implementation()}; torch {torch.__version__}; {args.repeats} repeats")
    print(f"matrix products reach {machine / 1e9:.0f} GFLOP/s, copies {bandwidth / 1e9:.1f} GB/s")
    rates = "| seconds | GFLOP | GB | % of matrix rate | % of bandwidth |\n|---|---|---|---|---|---|"
    digits = 3 if device.type == "cpu" else 4

    def row(name: str, seconds: float, flops: int, moved: int) -> str:
        of_rate, of_bandwidth = 100 * flops / seconds / machine, 100 * moved / seconds / bandwidth
        numbers = f"{seconds:.{digits}f} | {flops / 1e9:.1f} | {moved / 1e9:.2f}"
        return f"| {name} | {numbers} | {of_rate:.0f} | {of_bandwidth:.0f} |"

    print(f"\n| stage {rates}")
    for stage in stages[0]:
        print(row(stage, median(s[stage] for s in stages), *operators.of(stage)[1:]))
    rest = median(t - sum(s.values()) for t, s in zip(totals, stages, strict=True))
    print(row(_REST, rest, *operators.of(_REST)[1:]))
    print(row("all", median(totals), *operators.of()[1:]))
    print(f"\nmedians; all took from {min(totals):.{digits}f} to {max(totals):.{digits}f} s")
    print(f"peak memory {memory:.2f} GB, of which {before:.2f} GB before the first video")
    print(f"\n| operator, with the time to call it {rates}")
    names = {name: operators.of(operator=name) for _, name in operators.seconds}
    slowest = sorted(names, key=lambda name: -names[name][0])
    for name in slowest[:_SHOWN]:
        print(row(name, *names[name]))
    others = [names[name] for name in slowest[_SHOWN:]]
    print(row(f"{len(others)} others", *(sum(column) for column in zip(*others, strict=True))))


def _clip_options(clips: str) -> list[str]:
    """Returns config overrides for "LENGTHxSTRIDE"; none for ""."""
    if not clips:
        return []
    try:
        length, stride = (int(number) for number in clips.split("x"))
    except ValueError:
        raise InputError(f"--clips {clips}: must be LENGTHxSTRIDE") from None
    values = {"CLIP_MATCHING": True, "CLIP_LENGTH": length, "CLIP_STRIDE": stride}
    return [text for key, value in values.items() for text in (f"MODEL.SeqFormer.{key}", str(value))]


@contextmanager
def timed(model: SeqFormer, device: torch.device) -> Iterator[Stopwatch]:
    """Times the model's stages within the ``with`` block."""
    stopwatch = Stopwatch(device)
    stopwatch.attach(model)
    try:
        yield stopwatch
    finally:
        stopwatch.detach(model)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", default="configs/ytvis19/seqformer_R50.yaml")
    parser.add_argument("--frames", type=int, default=5)
    parser.add_argument("--video", help="frames and weights are real: the config's model on this video")
    parser.add_argument("--clips", default="", metavar="LENGTHxSTRIDE", help="cut the video into clips")
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
