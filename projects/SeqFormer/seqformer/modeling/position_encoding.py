"""Sine position encoding of unpadded cells."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["sine_position_encoding"]


def sine_position_encoding(padding_mask: Tensor, dim: int, temperature: float = 10000.0) -> Tensor:
    """Encodes the position of each cell in the unpadded part of its image.

    Args:
        padding_mask: (N, h, w) bool, true where padded.
        dim: number of features; the first half encodes y, the second half x.

    Returns:
        (N, h, w, dim) float32; sine and cosine interleaved.

    Source: DETR, supplement A.4, with coordinates normalised to 2 pi and measured at the cells' centres.
    """
    valid = (~padding_mask).to(torch.float32)
    y = valid.cumsum(1)
    x = valid.cumsum(2)
    y = (y - 0.5) / (y[:, -1:, :] + 1e-6) * (2 * math.pi)
    x = (x - 0.5) / (x[:, :, -1:] + 1e-6) * (2 * math.pi)

    half = dim // 2
    index = torch.arange(half, dtype=torch.float32, device=padding_mask.device)
    period = temperature ** (2 * torch.div(index, 2, rounding_mode="floor") / half)

    def encode(coordinate: Tensor) -> Tensor:
        angle = coordinate.unsqueeze(-1) / period
        return torch.stack((angle[..., 0::2].sin(), angle[..., 1::2].cos()), dim=-1).flatten(-2)

    return torch.cat((encode(y), encode(x)), dim=-1)
