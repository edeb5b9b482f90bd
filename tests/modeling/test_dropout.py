"""Dropout keeps what PyTorch's keeps: shares, expectations and gradients; its random numbers are others."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from seqformer.modeling.dropout import Dropout, dropout
from seqformer.modeling.layers import hidden_layer

SHAPES = [(3, 700, 401), (5,), (0, 4), (1 << 19, 3)]  # less and more than are processed together


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_are_dropped_or_scaled(device: torch.device, shape: tuple[int, ...], relu: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape, device=device, requires_grad=True)
    y = dropout(x, 0.25, relu=relu)
    expected = x.relu() if relu else x
    kept = y != 0
    torch.testing.assert_close(y[kept], expected[kept] / 0.75)
    gradient = torch.randn_like(x)
    y.backward(gradient)
    torch.testing.assert_close(x.grad, torch.where(kept, gradient / 0.75, 0.0))
    if x.numel() > 1000:
        assert abs(kept.float().mean().item() - (0.375 if relu else 0.75)) < 0.005


def test_the_share_is_right_in_every_part_and_neighbours_are_independent() -> None:
    torch.manual_seed(0)
    kept = Dropout(0.1)(torch.ones(1 << 22)) != 0
    for part in kept.chunk(64):
        assert abs(part.float().mean().item() - 0.9) < 5 * (0.09 / len(part)) ** 0.5
    for distance in (1, 2, 3, 4, 1 << 19):
        both = (kept[distance:] & kept[:-distance]).float().mean().item()
        assert abs(both - 0.81) < 1e-3
    for step in range(4):  # the four elements of one draw
        assert abs(kept[step::4].float().mean().item() - 0.9) < 1e-3


def test_seeds_repeat_it_and_calls_differ(device: torch.device) -> None:
    x = torch.ones(1000, device=device)
    torch.manual_seed(3)
    first, second = dropout(x, 0.5), dropout(x, 0.5)
    torch.manual_seed(3)
    assert torch.equal(dropout(x, 0.5), first) and not torch.equal(first, second)


@pytest.mark.parametrize("p", [0.0, 1e-6, 1.0])
def test_nothing_and_all_can_be_dropped(device: torch.device, p: float) -> None:
    x = torch.randn(1000, device=device)
    y = Dropout(p)(x)
    assert torch.equal(y, torch.zeros_like(x)) if p == 1 else torch.isclose(y, x).float().mean() > 0.99


def test_evaluation_drops_nothing(device: torch.device) -> None:
    layer, x = nn.Linear(6, 8).to(device), torch.randn(5, 6, device=device)
    module = Dropout(0.5).eval()
    assert torch.equal(module(x), x)
    torch.testing.assert_close(hidden_layer(layer, module, x), layer(x).relu())
    hidden = hidden_layer(layer, module.train(), x)
    assert ((hidden == 0) | torch.isclose(hidden, 2 * layer(x))).all()


def test_half_precision_and_other_layouts() -> None:
    x = torch.randn(40, 30, dtype=torch.bfloat16).T.requires_grad_()
    y = Dropout(0.5)(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == torch.bfloat16
    kept = y != 0
    assert torch.equal(y[kept], 2 * x[kept]) and torch.equal(x.grad, 2 * kept.to(torch.bfloat16))
