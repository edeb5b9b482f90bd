from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqformer.modeling.decoder import Decoder, DecoderLayer, DecoderOutput, _attend
from seqformer.modeling.layers import MLP, Levels

SHAPES = [(4, 6), (2, 3)]
S, D, HEADS = 30, 16, 4
B, T, Q = 2, 3, 5
LEVELS = Levels(SHAPES, torch.device("cpu"))


def make_decoder(num_layers: int = 3) -> Decoder:
    """A decoder with different weights everywhere, as after training."""
    decoder = Decoder([DecoderLayer(D, 24, 0.1, len(SHAPES), HEADS, 2) for _ in range(num_layers)])
    decoder.bbox_embed = nn.ModuleList(MLP(D, D, 4, 3) for _ in range(num_layers))
    for parameter in decoder.parameters():
        nn.init.normal_(parameter, std=0.3)
    return decoder.eval()


def make_inputs() -> dict[str, Tensor]:
    return {
        "content": torch.randn(B, Q, D),
        "position": torch.randn(B, Q, D),
        "reference": torch.rand(B, Q, 2),
        "memory": torch.randn(B * T, S, D),
        "padding_mask": torch.rand(B * T, S) < 0.2,
        "valid_ratios": torch.rand(B * T, len(SHAPES), 2) * 0.5 + 0.5,
    }


def decode(decoder: Decoder, inputs: dict[str, Tensor], **arguments: int) -> list[DecoderOutput]:
    return decoder(**inputs, levels=LEVELS, **{"num_frames": T, **arguments})


def attended(attention: nn.MultiheadAttention, query: Tensor, value: Tensor) -> Tensor:
    """Self-attention of Q queries (Q, d), computed one head and query at a time."""
    weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
    q, k, v = (x @ w.T + b for x, w, b in zip((query, query, value), weights, biases, strict=True))
    width = D // HEADS
    joined = torch.zeros_like(query)
    for m in range(HEADS):
        part = slice(m * width, (m + 1) * width)
        for i in range(len(query)):
            scores = torch.stack([q[i, part] @ k[j, part] for j in range(len(query))]) / math.sqrt(width)
            joined[i, part] = sum(a * v[j, part] for j, a in enumerate(scores.softmax(0)))
    return joined @ attention.out_proj.weight.T + attention.out_proj.bias


@pytest.mark.parametrize("groups", [1, 2])
def test_attention_with_dropout_is_attention_whose_weights_are_dropped(groups: int) -> None:
    attention = nn.MultiheadAttention(16, 4, dropout=1e-9, batch_first=True)
    query, value = torch.randn(3, 6, 16), torch.randn(3, 6, 16)
    expected = _attend(attention.eval(), query, value, groups)
    torch.testing.assert_close(_attend(attention.train(), query, value, groups), expected)
    attention.dropout = 0.5
    several = torch.stack([_attend(attention, query, value, groups) for _ in range(2000)])
    assert not torch.equal(several[0], several[1])
    torch.testing.assert_close(several.mean(0), expected, rtol=0, atol=0.1)


def readable_layer(
    layer: DecoderLayer, instance: Tensor, box: Tensor, position: Tensor, reference: Tensor, **memory: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One layer for one video, one frame at a time: (Q, d), (T or 1, Q, d), (Q, d), (T, Q, L, 2 or 4)."""
    instance = layer.norm2(instance + attended(layer.self_attn, instance + position, instance))
    frames, samples, scores = [], [], []
    for t in range(T):
        query = box[min(t, len(box) - 1)]
        query = layer.norm2_box(query + attended(layer.self_attn_box, query + position, query))
        sampled = layer.cross_attn(
            (query + position)[None],
            reference[t][None],
            memory["memory"][t][None],
            memory["padding_mask"][t][None],
            LEVELS,
        )[0]
        query = layer.norm1_box(query + layer.cross_attn.output_proj_box(sampled))
        query = layer.norm3_box(query + layer.linear2_box(F.relu(layer.linear1_box(query))))
        frames.append(query)
        samples.append(layer.cross_attn.output_proj(sampled))
        scores.append(layer.time_attention_weights(query)[:, 0])
    joined, weights = torch.zeros_like(instance), torch.zeros(T, Q)
    for i in range(Q):
        total = sum(score[i].exp() for score in scores)
        for t in range(T):
            weights[t, i] = scores[t][i].exp() / total
            joined[i] += weights[t, i] * samples[t][i]
    instance = layer.norm1(instance + joined)
    instance = layer.norm3(instance + layer.linear2(F.relu(layer.linear1(instance))))
    return instance, torch.stack(frames), weights


@torch.no_grad()
def test_agrees_with_the_readable_version() -> None:
    """Compares instance queries, box queries, temporal weights, references and boxes of every layer."""
    decoder, inputs = make_decoder(), make_inputs()
    outputs = decode(decoder, inputs)
    for b in range(B):
        frames = slice(b * T, (b + 1) * T)
        memory = {name: inputs[name][frames] for name in ("memory", "padding_mask")}
        instance, box = inputs["content"][b], inputs["content"][b][None]
        reference = inputs["reference"][b].expand(T, Q, 2)
        for layer, head, output in zip(decoder.layers, decoder.bbox_embed, outputs, strict=True):
            ratios = inputs["valid_ratios"][frames][:, None].repeat(1, 1, 1, reference.shape[-1] // 2)
            instance, box, weights = readable_layer(
                layer, instance, box, inputs["position"][b], reference[:, :, None] * ratios, **memory
            )
            torch.testing.assert_close(output.reference[b], reference)
            torch.testing.assert_close(output.instance_queries[b], instance, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(output.box_queries[b], box, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(output.temporal_weights[b], weights, rtol=1e-4, atol=1e-5)
            shift = (reference.clamp(1e-5) / (1 - reference).clamp(1e-5)).log()
            delta = head(box)
            delta[..., : shift.shape[-1]] += shift
            torch.testing.assert_close(output.boxes[b], delta.sigmoid(), rtol=1e-4, atol=1e-5)
            reference = output.boxes[b]


@torch.no_grad()
def test_the_order_of_frames_does_not_matter() -> None:
    """If frames are permuted, box queries and weights are permuted alike; instance queries do not change."""
    decoder, inputs = make_decoder(), make_inputs()
    order = [2, 0, 1]
    rows = [b * T + t for b in range(B) for t in order]
    shuffled = inputs | {name: inputs[name][rows] for name in ("memory", "padding_mask", "valid_ratios")}
    for first, second in zip(decode(decoder, inputs), decode(decoder, shuffled), strict=True):
        torch.testing.assert_close(second.instance_queries, first.instance_queries, rtol=1e-4, atol=1e-5)
        for name in ("box_queries", "boxes", "temporal_weights"):
            expected = getattr(first, name)[:, order]
            torch.testing.assert_close(getattr(second, name), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_one_frame_has_all_the_weight() -> None:
    inputs = {k: v[:B] if len(v) == B * T else v for k, v in make_inputs().items()}
    for output in decode(make_decoder(), inputs, num_frames=1):
        assert torch.equal(output.temporal_weights, torch.ones(B, 1, Q))


@torch.no_grad()
def test_groups_of_queries_are_independent() -> None:
    decoder, inputs = make_decoder(), make_inputs()
    names = ("content", "position", "reference")
    double = inputs | {k: torch.cat((inputs[k], torch.rand_like(inputs[k])), dim=1) for k in names}
    alone, together = decode(decoder, inputs), decode(decoder, double, groups=2)
    for one, both in zip(alone, together, strict=True):
        torch.testing.assert_close(both.instance_queries[:, :Q], one.instance_queries, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(both.boxes[:, :, :Q], one.boxes, rtol=1e-4, atol=1e-5)
    mixed = decode(decoder, double)[0].instance_queries[:, :Q]
    assert not torch.allclose(mixed, alone[0].instance_queries, atol=1e-3)


@pytest.mark.parametrize("recompute", [False, True])
def test_references_have_no_gradient(recompute: bool) -> None:
    """Losses on a layer's boxes train its own head, not the heads that its references came from."""
    decoder = make_decoder()
    decoder.recompute = recompute
    outputs = decode(decoder, make_inputs())
    outputs[-1].boxes.sum().backward()
    gradients = [head.layers[0].weight.grad for head in decoder.bbox_embed]
    assert gradients[0] is None and gradients[1] is None and gradients[2].abs().sum() > 0
    assert decoder.layers[0].linear1_box.weight.grad.abs().sum() > 0, "box queries must have a gradient"


@torch.no_grad()
def test_values_may_be_computed_before_for_frames_of_several_clips() -> None:
    decoder, inputs = make_decoder(), make_inputs()
    expected = decode(decoder, inputs)
    first, second = (
        decoder.values(inputs["memory"][frames], inputs["padding_mask"][frames])
        for frames in (slice(0, 2), slice(2, None))
    )
    values = [torch.cat(layer) for layer in zip(first, second, strict=True)]
    outputs = decode(
        decoder, {**inputs, "memory": torch.full_like(inputs["memory"], torch.nan)}, values=values
    )
    for output, plain in zip(outputs, expected, strict=True):
        torch.testing.assert_close(vars(output), vars(plain))
