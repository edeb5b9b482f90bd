from __future__ import annotations

import math

import pytest
import torch

from seqformer.ops import implementation, is_compiled, ms_deform_attn


def readable(value, shapes, starts, locations, weights) -> torch.Tensor:
    """Equation 3 of Deformable DETR, one sample at a time."""
    n, _, m, d = value.shape
    q, levels, points = locations.shape[1], locations.shape[3], locations.shape[4]
    out = torch.zeros(n, q, m, d, dtype=value.dtype)
    for i, j, head, level, point in (
        (i, j, h, level, p)
        for i in range(n)
        for j in range(q)
        for h in range(m)
        for level in range(levels)
        for p in range(points)
    ):
        height, width = shapes[level].tolist()
        x = locations[i, j, head, level, point, 0].item() * width - 0.5
        y = locations[i, j, head, level, point, 1].item() * height - 0.5
        for row in (math.floor(y), math.floor(y) + 1):
            for column in (math.floor(x), math.floor(x) + 1):
                if 0 <= row < height and 0 <= column < width:
                    share = (1 - abs(y - row)) * (1 - abs(x - column))
                    cell = value[i, starts[level] + row * width + column, head]
                    out[i, j, head] += weights[i, j, head, level, point] * share * cell
    return out.flatten(2)


def make_inputs(shapes: list[tuple[int, int]], dtype=torch.float64) -> tuple[torch.Tensor, ...]:
    cells = [h * w for h, w in shapes]
    n, m, d, q, points = 2, 2, 3, 4, 2
    return (
        torch.randn(n, sum(cells), m, d, dtype=dtype),
        torch.tensor(shapes),
        torch.tensor([sum(cells[:level]) for level in range(len(cells))]),
        torch.rand(n, q, m, len(shapes), points, 2, dtype=dtype) * 1.6 - 0.3,  # some outside
        torch.rand(n, q, m, len(shapes), points, dtype=dtype),
    )


@pytest.mark.parametrize("shapes", [[(5, 7)], [(6, 4), (3, 2)], [(1, 1), (4, 1), (1, 3)]])
def test_agrees_with_one_sample_at_a_time(shapes: list[tuple[int, int]]) -> None:
    inputs = make_inputs(shapes)
    torch.testing.assert_close(ms_deform_attn(*inputs), readable(*inputs))


def test_gradients() -> None:
    value, shapes, starts, locations, weights = make_inputs([(4, 3), (2, 2)])
    tensors = [t.requires_grad_() for t in (value, locations, weights)]
    assert torch.autograd.gradcheck(
        lambda v, at, w: ms_deform_attn(v, shapes, starts, at, w), tensors, atol=1e-6
    )


def test_far_outside_is_zero() -> None:
    value, shapes, starts, locations, weights = make_inputs([(4, 3)])
    assert (ms_deform_attn(value, shapes, starts, locations + 5, weights) == 0).all()


def test_implementation_is_named() -> None:
    assert implementation().startswith("compiled, " if is_compiled else "plain PyTorch (")
