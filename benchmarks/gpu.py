"""Prints tables of the operator, the network, clips and training steps on a GPU, as Markdown.

    FORCE_CUDA=1 python setup.py build_ext --inplace
    python benchmarks/gpu.py
    python benchmarks/gpu.py --device cpu --quick    # to try this program

Every table is made by a process of its own with a time limit, so that an error or a hang does not take the
other tables with it. Weights and videos are random. Peak memory is that of tensors.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from statistics import median
from typing import Any

import seqformer  # noqa: F401  before Detectron2, to hide one of its warnings

# isort: split
import op
import torch
from detectron2.modeling import build_model
from model import Stopwatch, random_video
from timing import (
    PRECISIONS,
    copy_bandwidth,
    device_name,
    matmul_rate,
    peak_memory,
    precision,
    reset_peak_memory,
    seconds_a_call,
    seconds_of,
)
from torch import Tensor
from training import training_batch, training_step

from seqformer import SeqFormer
from seqformer.config import load_config
from seqformer.inference import video as video_inference
from seqformer.ops import implementation, is_compiled
from seqformer.ops.reference import ms_deform_attn_fused_reference, ms_deform_attn_reference

CONFIG = "configs/ytvis19/seqformer_R50.yaml"
INSTANCES = 5  # in every training video
CLIPS = ("MODEL.SeqFormer.CLIP_MATCHING", "True", "MODEL.SeqFormer.CLIP_LENGTH", "5")


class Table:
    """Prints rows as they are measured, and stops measuring once its time is over."""

    def __init__(self, title: str, columns: Sequence[str], seconds: float):
        self._columns = len(columns)
        self._end = time.perf_counter() + seconds
        self.failures = 0
        print(f"\n### {title}\n", flush=True)
        print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)

    @property
    def left(self) -> float:
        """Seconds left."""
        return self._end - time.perf_counter()

    def row(self, *names: object, measure: Callable[[], Sequence[str]]) -> None:
        """Prints ``names`` and what ``measure`` returns, or why it failed."""
        if self.left <= 0:
            self._print(*names, "not measured: the time of this table is over")
            return
        try:
            cells = measure()
        except Exception as error:  # whatever fails must not take the other rows with it
            self.failures += 1
            lines = str(error).strip().splitlines() or [""]
            self._print(*names, f"failed: {type(error).__name__}: {lines[0][:200]}".replace("|", "/"))
        else:
            self._print(*names, *cells)

    def _print(self, *cells: object) -> None:
        padded = [*map(str, cells), *[""] * (self._columns - len(cells))]
        print(f"| {' | '.join(padded)} |", flush=True)


def milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.3f}" if seconds < 0.1 else f"{1000 * seconds:.1f}"


def errors(actual: Tensor | Sequence[Tensor], expected: Sequence[Tensor]) -> list[str]:
    """Returns two differences from float64 tensors, each of the tensor that is furthest off.

    The largest difference, as a part of the largest value, and the norm of the differences, as a part of the
    tensor's norm.
    """
    tensors = [actual] if isinstance(actual, Tensor) else actual
    largest, norms = [], []
    for tensor, right in zip(tensors, expected, strict=True):
        difference = tensor.detach().cpu().double() - right
        largest.append((difference.abs().max() / right.abs().max()).item())
        norms.append((difference.norm() / right.norm()).item())
    return [f"{max(largest):.1e}", f"{max(norms):.1e}"]


# Tables


def facts(device: torch.device, quick: bool) -> int:
    table = Table("Device", ("", ""), 30)
    size, megabytes = (512, 32) if quick else (None, 2048)
    table.row("device", measure=lambda: [device_name(device)])
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        table.row("memory", measure=lambda: [f"{properties.total_memory / 1e9:.1f} GB"])
        table.row("multiprocessors", measure=lambda: [properties.multi_processor_count])
    versions = f"{torch.__version__}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    table.row("PyTorch", measure=lambda: [f"{versions}, Python {platform.python_version()}"])
    table.row("deformable attention", measure=lambda: [implementation()])
    for name in PRECISIONS:
        table.row(
            f"matrix products, {name}",
            measure=lambda name=name: [f"{matmul_rate(device, name, size) / 1e12:.2f} TFLOP/s"],
        )
    table.row(
        "copy within the device, bytes read and written",
        measure=lambda: [f"{2 * copy_bandwidth(device, megabytes) / 1e9:.0f} GB/s"],
    )
    return table.failures


def operator(device: torch.device, quick: bool) -> int:
    """Times every form, and compares outputs and gradients with float64 on the CPU."""
    return sum(operator_case(encoder, device, quick) for encoder in ([False] if quick else [False, True]))


def operator_case(encoder: bool, device: torch.device, quick: bool) -> int:
    repeats = 1 if quick else 5
    case = op.make_case(encoder, device)
    functions = op.variants(case, op.other_package(), (torch.bfloat16, torch.float16))
    exact = {k: t.cpu().double() if t.is_floating_point() else t.cpu() for k, t in case.items()}
    expected = op.variants(exact, None, (), ms_deform_attn_reference, ms_deform_attn_fused_reference)
    table = Table(
        f"Operator, {'encoder' if encoder else 'decoder'}: {op.FRAMES} frames, "
        f"{case['locations'].shape[1]} queries. Errors from float64 on the CPU; gradients of locations jump "
        "at cell centres, so their largest error says little",
        ("", "ms", "times faster than plain PyTorch", "largest error", "error of the norm"),
        40,
    )
    times: dict[str, float] = {}
    right: dict[str, Sequence[Tensor]] = {}

    def measure(variant: str) -> list[str]:
        function = functions[variant]
        result = function()
        form = variant.partition(", value in")[0].partition(", torch-ms")[0].partition(", plain")[0]
        if form not in right:
            value = expected[form]()
            right[form] = [value] if isinstance(value, Tensor) else value
        differences = errors(result, right[form])
        seconds = [seconds_a_call(function, device) for _ in range(repeats + 1)]
        times[variant] = median(seconds[1:])
        slow = times.get(f"forward{' and backward' * ('backward' in variant)}, plain PyTorch")
        faster = f"{slow / times[variant]:.1f}" if slow else ""
        return [milliseconds(times[variant]), faster, *differences]

    for variant in sorted(functions, key=lambda name: "plain" not in name):
        table.row(variant, measure=partial(measure, variant))
    return table.failures


def build(device: torch.device, *options: str) -> SeqFormer:
    torch.manual_seed(0)
    return build_model(load_config(CONFIG, ["MODEL.DEVICE", str(device), *options]))


@contextmanager
def encoded_together(count: int, device: torch.device) -> Iterator[None]:
    """Encodes ``count`` frames in one batch."""
    before = video_inference.frames_together(device)
    video_inference.ENCODED_TOGETHER[device.type] = count
    try:
        yield
    finally:
        video_inference.ENCODED_TOGETHER[device.type] = before


def network_outputs(model: SeqFormer, images: list[Tensor], queries: Tensor | None) -> tuple[Tensor, ...]:
    """Returns class probabilities (Q, K), boxes (T, Q, 4), the best queries, and mask logits of ``queries``.

    Without ``queries`` the masks are those of the best.
    """
    network = model.network
    frames = network.encode(images)
    output = network.decode(frames, len(images))[-1]
    probabilities = network.classify(-1, output)[0].float().sigmoid()
    best = probabilities.amax(1).topk(10).indices
    chosen = best if queries is None else queries
    masks = network.masks(frames, output.instance_queries[0, chosen], output.reference[0, :, chosen])
    return probabilities, output.boxes[0].float(), best, masks


@torch.no_grad()
def network(device: torch.device, quick: bool) -> int:
    """Whole videos: speed, memory, stages, and how far reduced precision is from fp32."""
    height, width = (96, 128) if quick else (360, 640)
    model = build(device).eval()
    short, long = (
        random_video(2 if quick else 5, height, width),
        random_video(3 if quick else 36, height, width),
    )
    images = [image.to(device) for image in short[0]["image"]]
    repeats, warm_up = (1, 1) if quick else (5, 2)

    def speed(video: list[dict[str, Any]], name: str, limit: float) -> list[str]:
        reset_peak_memory(device)
        with precision(name, device):
            seconds = seconds_of(lambda: model(video), device, repeats=repeats, warm_up=warm_up, limit=limit)
        length = len(video[0]["image"])
        fastest = f"{length / min(seconds):.1f}"
        return [f"{length / median(seconds):.1f}", fastest, milliseconds(median(seconds)), memory(device)]

    columns = ("frames", "precision", "frames/s (median)", "frames/s (best)", "ms", "peak GB")
    table = Table(f"R50, a whole video of {height}x{width}, frames to results", columns, 30)
    for video in (short, long):
        for name in PRECISIONS:
            limit = table.left / 4
            table.row(len(video[0]["image"]), name, measure=lambda v=video, n=name, s=limit: speed(v, n, s))
    failures = table.failures

    table = Table(
        f"The same with more or fewer frames encoded together, {len(long[0]['image'])} frames, bf16",
        ("encoded together", *columns[2:]),
        15,
    )
    for count in (1, 4, 12, 36):

        def batch(count: int = count) -> list[str]:
            with encoded_together(count, device):
                return speed(long, "bf16", 2.0)

        table.row(count, measure=batch)
    failures += table.failures

    stages = ("backbone", "encoder", "mask features", "decoder", "masks")
    length = len(long[0]["image"])
    title = f"Milliseconds by stage, {length} frames; each stage waits for the device"
    table = Table(title, ("precision", *stages, "rest: selection, masks, RLE"), 15)
    for name in PRECISIONS:

        def by_stage(name: str = name) -> list[str]:
            stopwatch = Stopwatch(device)
            stopwatch.attach(model)
            try:
                with precision(name, device):
                    total = seconds_of(lambda: model(long), device, repeats=1, warm_up=0)[0]
            finally:
                stopwatch.detach(model)
            rest = total - sum(stopwatch.seconds.values())
            return [milliseconds(seconds) for seconds in (*(stopwatch.seconds[s] for s in stages), rest)]

        table.row(name, measure=by_stage)
    failures += table.failures

    columns = ("precision", "score", "box", "of fp32's ten best queries", "mask IoU: mean", "least")
    title = (
        f"Difference from fp32, {len(images)} frames: largest of scores and boxes, masks of the same queries"
    )
    table = Table(title, columns, 10)
    with precision("fp32", device):
        scores, boxes, best, masks = network_outputs(model, images, None)
    for name in PRECISIONS[1:]:

        def difference(name: str = name) -> list[str]:
            with precision(name, device):
                other = network_outputs(model, images, best)
            both = ((other[3] > 0) & (masks > 0)).flatten(1).sum(1)
            either = ((other[3] > 0) | (masks > 0)).flatten(1).sum(1)
            iou = torch.where(either > 0, both / either.clamp(min=1), 1.0)
            kept = len(set(best.tolist()) & set(other[2].tolist()))
            largest = [
                f"{(a - b).abs().max().item():.1e}" for a, b in ((other[0], scores), (other[1], boxes))
            ]
            return [*largest, f"{kept} of {len(best)}", f"{iou.mean().item():.4f}", f"{iou.min().item():.4f}"]

        table.row(name, measure=difference)
    return failures + table.failures


def memory(device: torch.device) -> str:
    """Returns the peak in GB; that of a CPU process says nothing about one row."""
    return f"{peak_memory(device):.2f}" if device.type == "cuda" else ""


@torch.no_grad()
def clips(device: torch.device, quick: bool) -> int:
    height, width, length = (96, 128, 6) if quick else (360, 640, 36)
    video = random_video(length, height, width)
    model = build(device, *CLIPS, "MODEL.SeqFormer.CLIP_STRIDE", "1").eval()
    columns = ("precision", "frames encoded together", "frames/s", "ms a frame", "peak GB")
    table = Table(f"R50, clips of 5 frames, stride 1, {length} frames of {height}x{width}", columns, 25)
    for count in (4, 12):
        for name in PRECISIONS:

            def measure(name: str = name, count: int = count) -> list[str]:
                reset_peak_memory(device)
                with precision(name, device), encoded_together(count, device):
                    seconds = median(
                        seconds_of(lambda: model(video), device, repeats=1 if quick else 3, limit=4.0)
                    )
                return [f"{length / seconds:.1f}", milliseconds(seconds / length), memory(device)]

            table.row(name, count, measure=measure)
    return table.failures


def training(device: torch.device, quick: bool) -> int:
    height, width, num_frames = (64, 96, 2) if quick else (360, 640, 5)
    repeats = 1 if quick else 3
    table = Table(
        f"Training steps, R50, {num_frames} frames of {height}x{width}, {INSTANCES} instances",
        ("checkpointing", "batch", "precision", "ms a step", "forward", "backward", "optimizer", "peak GB"),
        60,
    )

    def measure(
        model: SeqFormer, optimizer: torch.optim.Optimizer, videos: list[dict[str, Any]], name: str
    ) -> list[str]:
        try:
            training_step(model, optimizer, videos, name, device)
            reset_peak_memory(device)
            parts = [training_step(model, optimizer, videos, name, device) for _ in range(repeats)]
        finally:
            optimizer.zero_grad(set_to_none=True)
        forward, backward, update = (median(part) for part in zip(*parts, strict=True))
        total = median(sum(part) for part in parts)
        return [*map(milliseconds, (total, forward, backward, update)), memory(device)]

    for checkpointing in (False, True):
        model = build(device, "MODEL.SeqFormer.GRADIENT_CHECKPOINTING", str(checkpointing)).train()
        optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-6)
        for batch in (1,) if quick else (1, 2, 4):
            videos = training_batch(batch, num_frames, height, width, INSTANCES)
            for name in ("fp32", "tf32", "bf16"):
                row = partial(measure, model, optimizer, videos, name)
                table.row("yes" if checkpointing else "no", batch, name, measure=row)
    return table.failures


# Tables by name, and the seconds after which their process is ended.
TABLES: dict[str, tuple[Callable[[torch.device, bool], int], int]] = {
    "facts": (facts, 60),
    "operator": (operator, 120),
    "network": (network, 120),
    "clips": (clips, 90),
    "training": (training, 120),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tables", nargs="+", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--quick", action="store_true", help="small inputs, to try this program")
    parser.add_argument("--in-this-process", action="store_true", help="no process and limit for each table")
    args = parser.parse_args()
    device = torch.device(args.device)
    if not is_compiled:
        print("The operator is not compiled: plain PyTorch is measured.", flush=True)
    failed = []
    for name in args.tables:
        function, limit = TABLES[name]
        if args.in_this_process:
            if function(device, args.quick):
                failed.append(name)
            continue
        command = [sys.executable, __file__, "--device", args.device, "--tables", name, "--in-this-process"]
        start = time.perf_counter()
        try:
            code = subprocess.run([*command, *["--quick"] * args.quick], timeout=limit).returncode
        except subprocess.TimeoutExpired:
            print(f"\n{name}: ended after {limit} seconds", flush=True)
            code = 1
        print(f"\n({name}: {time.perf_counter() - start:.0f} s)", flush=True)
        if code:
            failed.append(name)
    if failed:
        sys.exit(f"failed, at least in part: {', '.join(failed)}")


if __name__ == "__main__":
    main()
