from __future__ import annotations

import math

import pytest
import torch
from networks import tiny_model

from seqformer.modeling.layers import MSDeformAttn, inverse_sigmoid
from seqformer.modeling.mask_head import dynamic_masks, dynamic_parameters
from seqformer.modeling.network import EncodedFrames
from seqformer.modeling.position_encoding import sine_position_encoding


@torch.no_grad()
def test_frames_do_not_mix_before_the_decoder() -> None:
    model = tiny_model()
    images = [torch.rand(3, 50, 70) * 255 for _ in range(3)]
    together = model.encode(images)
    parts = [model.encode([image]) for image in images]
    apart = EncodedFrames.cat(parts)
    torch.testing.assert_close(together.memory, apart.memory, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together.mask_features, apart.mask_features, rtol=1e-4, atol=1e-5)
    assert len(together[1:]) == 2


@torch.no_grad()
@pytest.mark.parametrize("num_frames", [1, 2, 7])
def test_any_number_of_frames_with_the_same_weights(num_frames: int) -> None:
    model = tiny_model()
    frames = model.encode([torch.rand(3, 40, 60) * 255 for _ in range(num_frames)])
    outputs = model.network.decode(frames, num_frames)
    for output in outputs:
        assert output.boxes.shape == (1, num_frames, 300, 4)
        torch.testing.assert_close(output.temporal_weights.sum(1), torch.ones(1, 300))


@torch.no_grad()
def test_videos_of_a_batch_do_not_mix() -> None:
    model = tiny_model()
    first, second = ([torch.rand(3, 64, 64) * 255 for _ in range(2)] for _ in range(2))
    both = model.network.decode(model.encode(first + second), 2)[-1]
    alone = model.network.decode(model.encode(second), 2)[-1]
    torch.testing.assert_close(both.instance_queries[1:], alone.instance_queries, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(both.boxes[1:], alone.boxes, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_padding_does_not_affect_queries() -> None:
    """Padded cells of memory are never sampled."""
    model = tiny_model()
    frames = model.encode([torch.rand(3, 40, 60) * 255 for _ in range(2)])
    assert frames.padding_mask.any()
    expected = model.network.decode(frames, 2)[-1].boxes
    frames.memory[frames.padding_mask] = 1e3
    torch.testing.assert_close(model.network.decode(frames, 2)[-1].boxes, expected)


@torch.no_grad()
def test_groups_of_queries_are_independent() -> None:
    model = tiny_model(QUERY_GROUPS=3, DROPOUT=0.0)
    frames = model.encode([torch.rand(3, 40, 60) * 255 for _ in range(2)])
    alone = model.network.decode(frames, 2)
    model.train()
    together = model.network.decode(frames, 2)
    model.detr.detr.training_query_embed.weight.add_(1)
    changed = model.network.decode(frames, 2)
    for one, all_groups, other in zip(alone, together, changed, strict=True):
        assert one.boxes.shape == (1, 2, 300, 4)
        assert all_groups.boxes.shape == (1, 2, 900, 4)
        torch.testing.assert_close(all_groups.instance_queries[:, :300], one.instance_queries)
        torch.testing.assert_close(all_groups.boxes[:, :, :300], one.boxes)
        assert torch.equal(all_groups.boxes[:, :, :300], other.boxes[:, :, :300])
        assert not torch.equal(all_groups.boxes[:, :, 300:], other.boxes[:, :, 300:])


def test_dynamic_masks_agree_with_plain_convolutions() -> None:
    n, t, c, h, w = 3, 2, 4, 5, 6
    features = torch.randn(t, c, h, w, dtype=torch.float64)
    parameters = torch.randn(n, dynamic_parameters(c), dtype=torch.float64)
    reference = torch.rand(n, t, 2, dtype=torch.float64) * 40
    y, x = torch.meshgrid(torch.arange(h) * 8.0 + 4, torch.arange(w) * 8.0 + 4, indexing="ij")
    drawn = dynamic_masks(features, parameters, reference)
    assert drawn.shape == (n, t, 2 * h, 2 * w)
    for i in range(n):
        w1, w2, w3, b1, b2, b3 = parameters[i].split([(c + 2) * 8, 64, 8, 8, 8, 1])
        for j in range(t):
            dx, dy = reference[i, j, 0] - x, reference[i, j, 1] - y
            hidden = torch.cat((torch.stack((dx, dy)), features[j])).flatten(1)
            for weight, bias in ((w1, b1), (w2, b2)):
                hidden = (weight.view(8, -1) @ hidden + bias[:, None]).relu()
            logits = (w3.view(1, 8) @ hidden + b3).view(h, w)
            # Upsampling keeps cell centres: odd cells coincide with coarse ones, even cells are between two.
            torch.testing.assert_close(drawn[i, j, 1::2, 1::2], logits, rtol=1e-5, atol=1e-5)
            between = (logits[:, :-1] + logits[:, 1:]) / 2
            torch.testing.assert_close(drawn[i, j, 1::2, 2::2], between, rtol=1e-5, atol=1e-5)


def test_position_encoding_counts_unpadded_cells() -> None:
    mask = torch.zeros(1, 4, 6, dtype=torch.bool)
    mask[:, 3:] = True
    mask[:, :, 4:] = True
    encoded = sine_position_encoding(mask, 8)
    assert encoded.shape == (1, 4, 6, 8)
    y = (2 - 0.5) / 3 * 2 * math.pi  # second of three rows
    x = (1 - 0.5) / 4 * 2 * math.pi  # first of four columns
    periods = [1.0, 1.0, 10000**0.5, 10000**0.5]
    expected = [f(v / p) for v in (y, x) for p, f in zip(periods, (math.sin, math.cos) * 2, strict=True)]
    torch.testing.assert_close(encoded[0, 1, 0], torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_initial_offsets_point_outwards() -> None:
    attention = MSDeformAttn(dim=64, num_levels=2, num_heads=8, num_points=3)
    attention.reset_parameters()
    offsets = attention.sampling_offsets.bias.detach().view(8, 2, 3, 2)
    assert torch.equal(offsets[:, 0], offsets[:, 1])
    for point in range(3):
        torch.testing.assert_close(offsets[:, 0, point].abs().amax(-1), torch.full((8,), point + 1.0))
    assert len({tuple(o) for o in offsets[:, 0, 0].round(decimals=3).tolist()}) == 8


def test_inverse_sigmoid() -> None:
    x = torch.tensor([0.2, 0.5, 0.9])
    torch.testing.assert_close(inverse_sigmoid(x).sigmoid(), x)
    assert inverse_sigmoid(torch.tensor([0.0, 1.0])).isfinite().all()


def test_width_must_divide_by_heads() -> None:
    with pytest.raises(ValueError, match="not divisible"):
        MSDeformAttn(dim=65, num_levels=1, num_heads=8, num_points=1)
