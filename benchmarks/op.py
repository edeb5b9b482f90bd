"""Compares the speed of deformable attention with plain PyTorch and the package torch-ms-deform-attn.

    pip install --no-deps torch-ms-deform-attn==0.1.1    # optional
    python benchmarks/op.py
    python benchmarks/op.py --device cuda

The encoder case is five frames of 384x640: every cell of four levels is a query that samples near itself. The
decoder case is 300 queries that sample anywhere. All variants run in turns, and medians are compared.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median

import torch
from timing import copy_bandwidth, device_name, seconds_a_call
from torch import Tensor

from seqformer.ops import implementation, is_compiled, ms_deform_attn, ms_deform_attn_fused
from seqformer.ops.reference import attention_weights, ms_deform_attn_reference, sampling_locations

FRAMES, HEADS, CHANNELS, POINTS = 5, 8, 32, 4
LEVELS = ((48, 80), (24, 40), (12, 20), (6, 10))
QUERIES = 300


def make_case(encoder: bool, device: torch.device) -> dict[str, Tensor]:
    """Returns the arguments of both forms of the operator, in float32, the same on every device."""
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
    case = {
        "value": torch.randn(FRAMES, sum(cells), HEADS, CHANNELS),
        "shapes": shapes,
        "starts": torch.tensor([sum(cells[:level]) for level in range(len(cells))]),
        "reference": reference.contiguous(),
        "offsets": offsets,
        "logits": logits,
        "locations": sampling_locations(reference, offsets, shapes),
        "weights": attention_weights(logits),
    }
    return {name: tensor.to(device) for name, tensor in case.items()}


def other_package() -> Callable[..., Tensor] | None:
    """Returns the operator of torch-ms-deform-attn, if installed."""
    try:
        module = importlib.import_module("torch_ms_deform_attn")
    except ImportError:
        return None
    return module.ms_deform_attn


def variants(
    case: dict[str, Tensor],
    other: Callable[..., Tensor] | None,
    halves: Sequence[torch.dtype] = (torch.bfloat16,),
    located_form: Callable[..., Tensor] = ms_deform_attn,
    fused_form: Callable[..., Tensor] = ms_deform_attn_fused,
) -> dict[str, Callable[[], Tensor | tuple[Tensor, ...]]]:
    """Returns the functions to time, by name: they return outputs, or gradients if they run backward.

    Args:
        case: from ``make_case``.
        other: another package's operator.
        halves: also run with a value of these dtypes.
        located_form, fused_form: the two forms of the operator.
    """
    sizes = (case["shapes"], case["starts"])
    located = (case["value"], *sizes, case["locations"], case["weights"])
    raw = (case["value"], *sizes, case["reference"], case["offsets"], case["logits"])
    gradient = torch.linspace(-1, 1, case["value"].shape[0] * located[3].shape[1] * HEADS * CHANNELS)
    gradient = gradient.view(len(case["value"]), -1, HEADS * CHANNELS).to(case["value"])

    def both_ways(
        function: Callable[..., Tensor], inputs: tuple[Tensor, ...] = located, first: int = 3
    ) -> Callable[[], tuple[Tensor, ...]]:
        """Gradients of the value, and of the inputs from the one with index ``first``."""
        leaves = [inputs[0].clone().requires_grad_(), *(t.clone().requires_grad_() for t in inputs[first:])]
        middle, weight = inputs[1:first], gradient.to(inputs[0].dtype)
        return lambda: torch.autograd.grad(function(leaves[0], *middle, *leaves[1:]), leaves, weight)

    def unfused(value: Tensor, *rest: Tensor) -> Tensor:
        shapes, starts, reference, offsets, logits = rest
        locations = sampling_locations(reference, offsets, shapes)
        return located_form(value, shapes, starts, locations, attention_weights(logits))

    table: dict[str, Callable[[], Tensor | tuple[Tensor, ...]]] = {
        "forward, plain PyTorch": lambda: ms_deform_attn_reference(*located),
        "forward": lambda: located_form(*located),
        "softmax, locations, forward": lambda: unfused(*raw),
        "the same fused": lambda: fused_form(*raw),
        "forward and backward, plain PyTorch": both_ways(ms_deform_attn_reference),
        "forward and backward": both_ways(located_form),
        "softmax, locations, forward and backward": both_ways(unfused, raw, 4),
        "the same fused, forward and backward": both_ways(fused_form, raw, 4),
    }
    for dtype in halves:
        suffix = f", value in {str(dtype).removeprefix('torch.')}"
        half = (case["value"].to(dtype), *located[1:])
        half_raw = (half[0], *raw[1:])
        table["forward" + suffix] = partial(located_form, *half)
        table["the same fused" + suffix] = partial(fused_form, *half_raw)
        table["forward and backward" + suffix] = both_ways(located_form, half)
        table["the same fused, forward and backward" + suffix] = both_ways(fused_form, half_raw, 4)
    if other is not None:
        table["forward, torch-ms-deform-attn"] = lambda: other(*located)
        table["forward and backward, torch-ms-deform-attn"] = both_ways(other)
    return table


def time_in_turns(
    table: dict[str, Callable[[], object]], repeats: int, device: torch.device
) -> dict[str, float]:
    """Returns the median time of each function, seconds; the first turn is a warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in table}
    for turn in range(repeats + 1):
        for name, function in table.items():
            value = seconds_a_call(function, device)
            if turn:
                seconds[name].append(value)
    return {name: median(values) for name, values in seconds.items()}


RATIOS = (
    ("forward, plain PyTorch", "forward"),
    ("forward, torch-ms-deform-attn", "forward"),
    ("forward and backward, plain PyTorch", "forward and backward"),
    ("forward and backward, torch-ms-deform-attn", "forward and backward"),
    ("softmax, locations, forward", "the same fused"),
    ("forward", "forward, value in bfloat16"),
    ("softmax, locations, forward and backward", "the same fused, forward and backward"),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    print(f"{device_name(device)}, {args.threads} threads; torch {torch.__version__}; {implementation()}")
    if not is_compiled:
        parser.error("the operator is not compiled: nothing to compare")
    other = other_package()
    if other is None:
        print("torch-ms-deform-attn is not installed and not compared")
    halves = (torch.bfloat16, torch.float16) if device.type == "cuda" else (torch.bfloat16,)
    for name, encoder in (("encoder", True), ("decoder", False)):
        case = make_case(encoder, device)
        table = variants(case, other, halves)
        if other is not None:
            expected = table["forward, plain PyTorch"]()
            torch.testing.assert_close(
                table["forward, torch-ms-deform-attn"](), expected, atol=1e-3, rtol=1e-3
            )
        seconds = time_in_turns(table, args.repeats, device)
        print(f"\n{name}: {FRAMES} frames, {case['locations'].shape[1]} queries, {HEADS} heads of {CHANNELS}")
        print("\n| | ms (median) |\n|---|---|")
        for variant, value in seconds.items():
            print(f"| {variant} | {1000 * value:.{3 if device.type == 'cuda' else 1}f} |")
        print("\n| | speedup |\n|---|---|")
        for slow, fast in RATIOS:
            if slow in seconds:
                print(f"| {fast} vs. {slow} | {seconds[slow] / seconds[fast]:.2f} |")
        gathered = 4 * case["weights"].numel() * CHANNELS * 4
        written = case["locations"].nbytes + case["weights"].nbytes
        rates = [gathered / seconds[form] / 1e9 for form in ("forward", "the same fused")]
        print(
            f"\ncells read: {gathered / 1e9:.2f} GB, forward {rates[0]:.1f} GB/s, fused {rates[1]:.1f} GB/s; "
            f"a copy of memory reads {copy_bandwidth(device) / 1e9:.1f} GB/s. "
            f"The fused form never writes {written / 1e6:.1f} MB of locations and weights"
        )


if __name__ == "__main__":
    main()
