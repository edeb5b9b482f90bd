"""The weights that the reference figures were computed with, made from names and shapes."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor


def make_weights(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """Random float32 tensors by name; each depends on its own name and shape only.

    Scales keep activations of the network at the size that trained weights give.

    Args:
        shapes: the shape of every parameter and buffer, by the original release's names.
    """
    return {name: _make_tensor(name, shape) for name, shape in shapes.items()}


def _make_tensor(name: str, shape: list[int]) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        return torch.rand(shape, generator=generator) + 0.5
    noise = torch.randn(shape, generator=generator)
    if name.endswith("running_mean"):
        return 0.1 * noise
    owner, leaf = name.rsplit(".", 2)[-2:]
    if leaf == "bias":
        return _make_bias(name, noise)
    if len(shape) == 1:  # The last norm of a residual block is small, so that activations do not grow.
        return (0.3 if owner == "bn3" else 1.0) + 0.1 * noise
    if "query_embed" in name or "level_embed" in name:
        return 0.7 * noise
    return _gain(name, owner) * noise / noise[0].numel() ** 0.5


def _make_bias(name: str, noise: Tensor) -> Tensor:
    if "class_embed" in name:
        return 0.5 * noise - 3
    if "sampling_offsets" in name:
        return 1.5 * noise
    return (0.5 if "controller.layers.2" in name else 0.1) * noise


def _gain(name: str, owner: str) -> float:
    large = ("class_embed", "sampling_offsets", "time_attention", "controller.layers.2")
    if any(part in name for part in large):
        return 2.0
    return 1.4 if "conv" in owner or "downsample" in name or "body" in name else 1.0
