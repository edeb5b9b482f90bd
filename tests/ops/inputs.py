"""Arguments for the deformable attention operators, and the tolerance of their results."""

from __future__ import annotations

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
MARGIN = 0.15
"""Distance of locations from cell centres, in cells. Gradients jump there; rounding must not cross them."""


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
    """Returns arguments of ``ms_deform_attn``, with some locations outside the levels."""
    cells = [h * w for h, w in shapes]
    location_dtype = location_dtype or dtype
    samples = (images, queries, heads, len(shapes), points)
    return (
        torch.randn(images, sum(cells), heads, channels).to(dtype),
        torch.tensor(shapes, dtype=torch.int64).view(-1, 2),
        torch.tensor([sum(cells[:level]) for level in range(len(cells))], dtype=torch.int64),
        make_locations(shapes, samples).to(location_dtype),
        torch.rand(*samples, dtype=torch.float64).to(location_dtype),
    )


def make_locations(shapes: list[tuple[int, int]], samples: tuple[int, ...]) -> Tensor:
    """Returns (N, Q, M, L, P, 2) float64, at most 1.5 cells outside a level, ``MARGIN`` from cell centres."""
    sizes = torch.tensor(shapes, dtype=torch.float64).view(-1, 2).flip(1)[:, None]  # L, 1, xy
    centres = (torch.rand(*samples, 2, dtype=torch.float64) * (sizes + 3)).floor() - 1.5
    between = MARGIN + (1 - 2 * MARGIN) * torch.rand(*samples, 2, dtype=torch.float64)
    return (centres + between) / sizes


def make_fused_inputs(shapes: list[tuple[int, int]], size: int, **options) -> tuple[Tensor, ...]:
    """Returns arguments of ``ms_deform_attn_fused`` with points (size 2) or boxes (size 4).

    If levels have at most 30 cells a side, rounded references and offsets stay away from cell centres.
    """
    value, spatial_shapes, starts, _, weights = make_inputs(shapes, **options)
    n, q, _, levels, points = weights.shape
    reference = torch.rand(n, q, levels, size, dtype=torch.float64)
    reference[..., 2:] = 0.2 + 0.8 * reference[..., 2:]
    reference = reference.to(weights.dtype)
    places = reference.double()[:, :, None, :, None]
    unit = (
        places[..., 2:] * 0.5 / max(points, 1) if size == 4 else 1 / spatial_shapes.flip(1).double()[:, None]
    )
    offsets = ((make_locations(shapes, weights.shape) - places[..., :2]) / unit).to(weights.dtype)
    return value, spatial_shapes, starts, reference, offsets, 8 * weights


def in_double(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(t.double() if t.is_floating_point() else t for t in inputs)


def on(device: torch.device, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(t.to(device) for t in inputs)


def assert_agrees(actual: Tensor, expected: Tensor) -> None:
    """Checks ``actual`` against float64 ``expected``, as if computed in float32 or 64 and rounded once.

    They can be on different devices.
    """
    actual, expected = actual.cpu(), expected.cpu()
    slack = 1e-12 if actual.dtype == torch.float64 else 2e-5
    rounding = torch.finfo(actual.dtype).eps / 2
    scale = max(expected.abs().max().item(), 1) if expected.numel() else 1
    torch.testing.assert_close(actual.double(), expected, atol=slack * scale, rtol=rounding)
