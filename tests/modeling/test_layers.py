from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from seqformer.modeling.layers import MLP, Levels, MSDeformAttn, inverse_sigmoid, linear, run_layer

SHAPES = [(3, 4), (2, 2)]
N, Q, D, HEADS, POINTS = 2, 3, 8, 2, 2
S = sum(height * width for height, width in SHAPES)


def attention() -> MSDeformAttn:
    """A layer with offsets of a few cells and different weights, as after training."""
    module = MSDeformAttn(D, len(SHAPES), HEADS, POINTS)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


def inputs(coordinates: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Levels]:
    padding = torch.zeros(N, S, dtype=torch.bool)
    padding[1, [3, 7, 11, 13, 15]] = True  # the last columns of the second image
    reference = torch.rand(N, Q, len(SHAPES), coordinates)
    return torch.randn(N, Q, D), reference, torch.randn(N, S, D), padding, Levels(SHAPES, torch.device("cpu"))


def readable_attention(
    module: MSDeformAttn, query: Tensor, reference: Tensor, value: Tensor, padding: Tensor
) -> Tensor:
    """One image, query, head, level and point at a time; a sample is the mean of the four nearest cells."""
    width = D // HEADS
    result = torch.zeros(N, Q, D)
    for n in range(N):
        cells = module.value_proj(value[n]) * ~padding[n, :, None]
        for q in range(Q):
            offsets = module.sampling_offsets(query[n, q]).view(HEADS, len(SHAPES), POINTS, 2)
            weights = module.attention_weights(query[n, q]).view(HEADS, -1).softmax(-1)
            for m in range(HEADS):
                for p in range(len(SHAPES) * POINTS):
                    level, point = divmod(p, POINTS)
                    h, w = SHAPES[level]
                    start = sum(a * b for a, b in SHAPES[:level])
                    grid = cells[start : start + h * w].view(h, w, D)[..., m * width : (m + 1) * width]
                    box = reference[n, q, level]
                    if len(box) == 2:
                        location = box + offsets[m, level, point] / torch.tensor([w, h])
                    else:
                        location = box[:2] + offsets[m, level, point] / POINTS * box[2:] * 0.5
                    x, y = (location * torch.tensor([w, h]) - 0.5).tolist()
                    for row in (math.floor(y), math.floor(y) + 1):
                        for column in (math.floor(x), math.floor(x) + 1):
                            if 0 <= row < h and 0 <= column < w:
                                share = (1 - abs(y - row)) * (1 - abs(x - column))
                                sample = weights[m, p] * share * grid[row, column]
                                result[n, q, m * width : (m + 1) * width] += sample
    return result


@torch.no_grad()
@pytest.mark.parametrize("coordinates", [2, 4])
def test_deformable_attention_agrees_with_the_readable_version(coordinates: int) -> None:
    module = attention()
    query, reference, value, padding, levels = inputs(coordinates)
    actual = module(query, reference, value, padding, levels)
    assert actual.abs().max() > 0.1
    torch.testing.assert_close(actual, readable_attention(module, query, reference, value, padding))


@torch.no_grad()
def test_padded_cells_have_no_effect() -> None:
    module = attention()
    query, reference, value, padding, levels = inputs(4)
    expected = module(query, reference, value, padding, levels)
    value[padding] = 1e6
    assert torch.equal(module(query, reference, value, padding, levels), expected)
    value[~padding] += 1
    assert not torch.allclose(module(query, reference, value, padding, levels), expected)


def test_initial_offsets_point_outwards() -> None:
    module = MSDeformAttn(dim=64, num_levels=2, num_heads=8, num_points=3)
    module.reset_parameters()
    offsets = module.sampling_offsets.bias.detach().view(8, 2, 3, 2)
    assert torch.equal(offsets[:, 0], offsets[:, 1])
    for point in range(3):
        torch.testing.assert_close(offsets[:, 0, point].abs().amax(-1), torch.full((8,), point + 1.0))
    assert len({tuple(o) for o in offsets[:, 0, 0].round(decimals=3).tolist()}) == 8


def test_width_must_divide_by_heads() -> None:
    with pytest.raises(ValueError, match="not divisible"):
        MSDeformAttn(dim=65, num_levels=1, num_heads=8, num_points=1)


@given(x=st.floats(1e-4, 1 - 1e-4))
def test_inverse_sigmoid_inverts_the_sigmoid(x: float) -> None:
    value = torch.tensor([x], dtype=torch.float64)
    torch.testing.assert_close(inverse_sigmoid(value).sigmoid(), value)


def test_inverse_sigmoid_is_finite_at_the_ends() -> None:
    """Values at or beyond the ends are clamped by eps."""
    ends = inverse_sigmoid(torch.tensor([-1.0, 0.0, 1e-7, 1.0, 2.0]))
    limit = math.log(1e-5)
    torch.testing.assert_close(ends, torch.tensor([limit, limit, limit, -limit, -limit]))


def test_mlp_is_linear_layers_with_relu_between() -> None:
    mlp = MLP(3, 5, 2, 3)
    assert [tuple(layer.weight.shape) for layer in mlp.layers] == [(5, 3), (5, 5), (2, 5)]
    nn.init.constant_(mlp.layers[-1].bias, -5.0)  # no ReLU after the last layer
    x = torch.randn(4, 3)
    expected = x
    for number, layer in enumerate(mlp.layers):
        expected = expected @ layer.weight.T + layer.bias
        expected = expected.clamp(min=0) if number < 2 else expected
    torch.testing.assert_close(mlp(x), expected)
    assert (expected < 0).all()


def test_levels_follow_one_another() -> None:
    levels = Levels(SHAPES, torch.device("cpu"))
    assert levels.start_index.tolist() == [0, 12] and levels.spatial_shapes.tolist() == [[3, 4], [2, 2]]
    x = torch.arange(N * S * D).view(N, S, D)
    for level, part in enumerate(levels.split(x)):
        height, width = SHAPES[level]
        assert part.shape == (N, D, height, width)
        for row in range(height):
            for column in range(width):
                cell = int(levels.start_index[level]) + row * width + column
                assert torch.equal(part[:, :, row, column], x[:, cell])


def test_a_recomputed_layer_has_the_same_gradients() -> None:
    layer = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    calls, gradients = [], []
    layer.register_forward_pre_hook(lambda *_: calls.append(1))
    x = torch.randn(3, 4)
    for recompute in (False, True):
        layer.zero_grad()
        run_layer(layer, x, recompute=recompute).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in layer.parameters()])
    assert len(calls) == 1 + 2
    torch.testing.assert_close(gradients[0], gradients[1])
    with torch.no_grad():
        run_layer(layer, x, recompute=True)
    assert len(calls) == 4, "must run only once without gradients"


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(5,), (2, 7, 5), (0, 5)])
def test_linear_layers_are_equal_with_and_without_gradients(
    shape: tuple[int, ...], dtype: torch.dtype, relu: bool
) -> None:
    layer = nn.Linear(5, 3, dtype=dtype)
    x = torch.randn(shape, dtype=dtype)
    expected = x @ layer.weight.T + layer.bias
    expected = expected.clamp(min=0) if relu else expected
    with_gradients = linear(layer, x, relu=relu)
    torch.testing.assert_close(with_gradients, expected)
    assert with_gradients.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(linear(layer, x, relu=relu), expected)
        if x.dim() > 1:  # not contiguous
            torch.testing.assert_close(
                linear(layer, x.transpose(0, -2), relu=relu), expected.transpose(0, -2)
            )


@torch.no_grad()
def test_linear_layers_obey_autocast_and_other_classes() -> None:
    class Twice(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    layer, x = nn.Linear(5, 3), torch.randn(2, 5)
    twice = Twice(5, 3)
    twice.load_state_dict(layer.state_dict())
    torch.testing.assert_close(linear(twice, x), 2 * linear(layer, x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(layer, x).dtype == torch.bfloat16


@torch.no_grad()
def test_values_may_be_projected_before() -> None:
    module = attention()
    query, reference, value, padding, levels = inputs(4)
    projected = module.project(value, padding)
    assert not projected[padding].any()
    actual = module(query, reference, torch.full_like(value, torch.nan), padding, levels, projected)
    assert torch.equal(actual, module(query, reference, value, padding, levels))
