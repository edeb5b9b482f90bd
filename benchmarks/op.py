"""Compares the speed of deformable attention with plain PyTorch and the package torch-ms-deform-attn.

    pip install --no-deps torch-ms-deform-attn==0.1.1    # optional
    python benchmarks/op.py

The encoder case is five frames of 384x640: every cell of four levels is a query that samples near itself. The
decoder case is 300 queries that sample anywhere. All variants run in turns, and medians are compared.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from seqformer.cli.env import cpu_name
from seqformer.ops import implementation, is_compiled, ms_deform_attn, ms_deform_attn_fused
from seqformer.ops.reference import attention_weights, ms_deform_attn_reference, sampling_locations

FRAMES, HEADS, CHANNELS, POINTS = 5, 8, 32, 4
LEVELS = ((48, 80), (24, 40), (12, 20), (6, 10))
QUERIES = 300


def make_case(encoder: bool) -> dict[str, Tensor]:
    """Returns the arguments of both forms of the operator, in float32."""
    cells = [h * w for h, w in LEVELS]
    shapes = torch.tensor(LEVELS)
    if encoder:
        centres = [
            torch.stack(
                torch.meshgrid((torch.arange(w) + 0.5) / w, (torch.arange(h) + 0.5) / h, indexing="xy"), -1
            ).flatten(0, 1)
            for h, w in LEVELS
        ]
        reference = torch.cat(centres)[None, :, None].expand(FRAMES, -1, len(LEVELS), -1)
    else:
        reference = torch.rand(FRAMES, QUERIES, len(LEVELS), 4)
    samples = (FRAMES, reference.shape[1], HEADS, len(LEVELS), POINTS)
    offsets = 2 * torch.randn(*samples, 2)
    logits = torch.randn(samples)
    return {
        "value": torch.randn(FRAMES, sum(cells), HEADS, CHANNELS),
        "shapes": shapes,
        "starts": torch.tensor([sum(cells[:level]) for level in range(len(cells))]),
        "reference": reference.contiguous(),
        "offsets": offsets,
        "logits": logits,
        "locations": sampling_locations(reference, offsets, shapes),
        "weights": attention_weights(logits),
    }


def other_package() -> Callable[..., Tensor] | None:
    """Returns the operator of torch-ms-deform-attn, if installed."""
    try:
        module = importlib.import_module("torch_ms_deform_attn")
    except ImportError:
        return None
    return module.ms_deform_attn


def variants(case: dict[str, Tensor], other: Callable[..., Tensor] | None) -> dict[str, Callable[[], object]]:
    """Returns the functions to time, by name."""
    sizes = (case["shapes"], case["starts"])
    located = (case["value"], *sizes, case["locations"], case["weights"])
    half = (case["value"].bfloat16(), *sizes, case["locations"], case["weights"])
    raw = (case["reference"], case["offsets"], case["logits"])
    leaves = [case[name].clone().requires_grad_() for name in ("value", "locations", "weights")]
    gradient = torch.randn_like(ms_deform_attn(*located))

    def both_ways(function: Callable[..., Tensor]) -> Callable[[], object]:
        value, locations, weights = leaves
        return lambda: torch.autograd.grad(function(value, *sizes, locations, weights), leaves, gradient)

    def unfused() -> Tensor:
        locations = sampling_locations(case["reference"], case["offsets"], case["shapes"])
        return ms_deform_attn(case["value"], *sizes, locations, attention_weights(case["logits"]))

    table: dict[str, Callable[[], object]] = {
        "forward, plain PyTorch": lambda: ms_deform_attn_reference(*located),
        "forward": lambda: ms_deform_attn(*located),
        "forward, value in bfloat16": lambda: ms_deform_attn(*half),
        "softmax, locations, forward": unfused,
        "the same fused": lambda: ms_deform_attn_fused(case["value"], *sizes, *raw),
        "forward and backward, plain PyTorch": both_ways(ms_deform_attn_reference),
        "forward and backward": both_ways(ms_deform_attn),
    }
    if other is not None:
        table["forward, torch-ms-deform-attn"] = lambda: other(*located)
        table["forward and backward, torch-ms-deform-attn"] = both_ways(other)
    return table


def time_in_turns(table: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Returns the median time of each function, seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in table}
    for turn in range(repeats + 1):
        for name, function in table.items():
            start = time.perf_counter()
            function()
            if turn:  # the first is a warm-up
                seconds[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in seconds.items()}


def copy_bandwidth() -> float:
    """Returns the bytes per second read (and written) when copying 256 MB, best of ten."""
    source = torch.zeros(1 << 26)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        target.copy_(source)
        best = min(best, time.perf_counter() - start)
    return source.nbytes / best


RATIOS = (
    ("forward, plain PyTorch", "forward"),
    ("forward, torch-ms-deform-attn", "forward"),
    ("forward and backward, plain PyTorch", "forward and backward"),
    ("forward and backward, torch-ms-deform-attn", "forward and backward"),
    ("softmax, locations, forward", "the same fused"),
    ("forward", "forward, value in bfloat16"),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    print(f"{cpu_name()}, {args.threads} threads; torch {torch.__version__}; {implementation()}")
    if not is_compiled:
        parser.error("the operator is not compiled: nothing to compare")
    other = other_package()
    if other is None:
        print("torch-ms-deform-attn is not installed and not compared")
    for name, encoder in (("encoder", True), ("decoder", False)):
        case = make_case(encoder)
        table = variants(case, other)
        if other is not None:
            expected = table["forward, plain PyTorch"]()
            torch.testing.assert_close(
                table["forward, torch-ms-deform-attn"](), expected, atol=1e-3, rtol=1e-3
            )
        seconds = time_in_turns(table, args.repeats)
        print(f"\n{name}: {FRAMES} frames, {case['locations'].shape[1]} queries, {HEADS} heads of {CHANNELS}")
        print("\n| | ms (median) |\n|---|---|")
        for variant, value in seconds.items():
            print(f"| {variant} | {1000 * value:.1f} |")
        print("\n| | speedup |\n|---|---|")
        for slow, fast in RATIOS:
            if slow in seconds:
                print(f"| {fast} vs. {slow} | {seconds[slow] / seconds[fast]:.2f} |")
        gathered = 4 * case["weights"].numel() * CHANNELS * 4
        written = case["locations"].nbytes + case["weights"].nbytes
        rates = [gathered / seconds[form] / 1e9 for form in ("forward", "the same fused")]
        print(
            f"\ncells read: {gathered / 1e9:.2f} GB, forward {rates[0]:.1f} GB/s, fused {rates[1]:.1f} GB/s; "
            f"a copy of main memory reads {copy_bandwidth() / 1e9:.1f} GB/s. "
            f"The fused form never writes {written / 1e6:.1f} MB of locations and weights"
        )


if __name__ == "__main__":
    main()
