"""Arguments for the operators of deformable attention."""

from __future__ import annotations

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def make_inputs(
    shapes: list[tuple[int, int]],
    *,
    images: int = 2,
    queries: int = 4,
    heads: int = 2,
    channels: int = 3,
    points: int = 2,
    dtype: torch.dtype = torch.float64,
    location_dtype: torch.dtype | None = None,
) -> tuple[Tensor, ...]:
    """Arguments of ``ms_deform_attn``; some locations lie outside of the levels."""
    cells = [h * w for h, w in shapes]
    location_dtype = location_dtype or dtype
    samples = (images, queries, heads, len(shapes), points)
    return (
        torch.randn(images, sum(cells), heads, channels).to(dtype),
        torch.tensor(shapes, dtype=torch.int64).view(-1, 2),
        torch.tensor([sum(cells[:level]) for level in range(len(cells))], dtype=torch.int64),
        (torch.rand(*samples, 2, dtype=torch.float64) * 1.6 - 0.3).to(location_dtype),
        torch.rand(*samples, dtype=torch.float64).to(location_dtype),
    )


def make_fused_inputs(shapes: list[tuple[int, int]], size: int, **options) -> tuple[Tensor, ...]:
    """Arguments of ``ms_deform_attn_fused`` with points (size 2) or boxes (size 4)."""
    value, spatial_shapes, starts, locations, weights = make_inputs(shapes, **options)
    n, q, _, levels, _ = weights.shape
    reference = torch.rand(n, q, levels, size, dtype=torch.float64).to(weights.dtype)
    return value, spatial_shapes, starts, reference, 6 * locations - 2, 8 * weights
