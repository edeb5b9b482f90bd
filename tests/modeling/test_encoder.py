from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from seqformer.modeling.encoder import Encoder, EncoderLayer
from seqformer.modeling.geometry import FrameGeometry, reference_points
from seqformer.modeling.layers import Levels

SHAPES = [(4, 6), (2, 3)]
S, D = 30, 16
LEVELS = Levels(SHAPES, torch.device("cpu"))


def make_encoder(num_layers: int = 2, dropout: float = 0.0) -> Encoder:
    encoder = Encoder([EncoderLayer(D, 24, dropout, len(SHAPES), 4, 2) for _ in range(num_layers)])
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.3)
    return encoder.eval()


def padding(width: int) -> torch.Tensor:
    """Returns a padding mask (1, S) with ``width`` of the six columns of the fine level unpadded."""
    masks = []
    for level, (height, columns) in enumerate(SHAPES):
        mask = torch.zeros(height, columns, dtype=torch.bool)
        mask[:, width // 2**level :] = True
        masks.append(mask.flatten())
    return torch.cat(masks)[None]


def geometry(mask: torch.Tensor, ratios: torch.Tensor) -> FrameGeometry:
    reference = reference_points(LEVELS, ratios)
    return FrameGeometry(LEVELS, mask, ratios, torch.empty(0), reference)


@torch.no_grad()
def test_a_layer_is_attention_and_a_feed_forward_network_each_with_residual_and_norm() -> None:
    layer = make_encoder(1).layers[0]
    x, position = torch.randn(2, S, D), torch.randn(2, S, D)
    reference, mask = torch.rand(2, S, 2, 2), padding(4).expand(2, -1)
    sampled = layer.self_attn(x + position, reference, x, mask, LEVELS)
    first = x + sampled @ layer.self_attn.output_proj.weight.T + layer.self_attn.output_proj.bias
    first = F.layer_norm(first, (D,), layer.norm1.weight, layer.norm1.bias)
    hidden = (first @ layer.linear1.weight.T + layer.linear1.bias).clamp(min=0)
    second = first + hidden @ layer.linear2.weight.T + layer.linear2.bias
    expected = F.layer_norm(second, (D,), layer.norm2.weight, layer.norm2.bias)
    torch.testing.assert_close(layer(x, position, reference, mask, LEVELS), expected)


@torch.no_grad()
def test_frames_do_not_mix() -> None:
    encoder = make_encoder()
    x, position = torch.randn(3, S, D), torch.randn(3, S, D)
    mask, ratios = padding(4).expand(3, -1), torch.tensor([[[4 / 6, 1.0], [2 / 3, 1.0]]]).expand(3, -1, -1)
    together = encoder(x, position, geometry(mask, ratios))
    for n in range(3):
        alone = encoder(x[n : n + 1], position[n : n + 1], geometry(mask[:1], ratios[:1]))
        torch.testing.assert_close(together[n : n + 1], alone)


@torch.no_grad()
def test_padded_cells_have_no_effect() -> None:
    encoder = make_encoder()
    x, position, mask = torch.randn(1, S, D), torch.randn(1, S, D), padding(4)
    ratios = torch.tensor([[[4 / 6, 1.0], [2 / 3, 1.0]]])
    expected = encoder(x, position, geometry(mask, ratios))
    x[mask] += 5
    changed = encoder(x, position, geometry(mask, ratios))
    torch.testing.assert_close(changed[~mask], expected[~mask])
    assert not torch.allclose(changed[mask], expected[mask])


@pytest.mark.parametrize("recompute", [False, True])
def test_every_layer_has_a_gradient(recompute: bool) -> None:
    """Except ``output_proj_box``, which exists only for checkpoints."""
    encoder = make_encoder()
    encoder.recompute = recompute
    ratios = torch.ones(1, 2, 2)
    frame = geometry(padding(6), ratios)
    encoder(torch.randn(1, S, D), torch.randn(1, S, D), frame).square().sum().backward()
    without = {name for name, p in encoder.named_parameters() if p.grad is None}
    unused = {f"layers.{n}.self_attn.output_proj_box.{p}" for n in range(2) for p in ("weight", "bias")}
    assert without == unused
