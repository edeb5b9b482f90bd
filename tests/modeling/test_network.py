from __future__ import annotations

import pytest
import torch
from networks import tiny_model

from seqformer.errors import InputError
from seqformer.modeling.network import EncodedFrames, Transformer


@torch.no_grad()
def test_frames_do_not_mix_before_the_decoder(device: torch.device, slack: float) -> None:
    model = tiny_model().to(device)
    images = [torch.rand(3, 50, 70) * 255 for _ in range(3)]
    together = model.encode(images)
    parts = [model.encode([image]) for image in images]
    apart = EncodedFrames.cat(parts)
    torch.testing.assert_close(together.memory, apart.memory, rtol=1e-4, atol=1e-5 * slack)
    torch.testing.assert_close(together.mask_features, apart.mask_features, rtol=1e-4, atol=1e-5 * slack)
    assert len(together[1:]) == 2


@torch.no_grad()
@pytest.mark.parametrize("num_frames", [1, 2, 7])
def test_any_number_of_frames_with_the_same_weights(device: torch.device, num_frames: int) -> None:
    model = tiny_model().to(device)
    frames = model.encode([torch.rand(3, 40, 60) * 255 for _ in range(num_frames)])
    outputs = model.network.decode(frames, num_frames)
    for output in outputs:
        assert output.boxes.shape == (1, num_frames, 300, 4)
        torch.testing.assert_close(output.temporal_weights.sum(1), torch.ones(1, 300, device=device))


@torch.no_grad()
def test_videos_of_a_batch_do_not_mix(device: torch.device, slack: float) -> None:
    model = tiny_model().to(device)
    first, second = ([torch.rand(3, 64, 64) * 255 for _ in range(2)] for _ in range(2))
    both = model.network.decode(model.encode(first + second), 2)[-1]
    alone = model.network.decode(model.encode(second), 2)[-1]
    torch.testing.assert_close(
        both.instance_queries[1:], alone.instance_queries, rtol=1e-4, atol=1e-4 * slack
    )
    torch.testing.assert_close(both.boxes[1:], alone.boxes, rtol=1e-4, atol=1e-5 * slack)


@torch.no_grad()
def test_padding_does_not_affect_queries(device: torch.device) -> None:
    """Padded cells of memory are never sampled."""
    model = tiny_model().to(device)
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


@torch.no_grad()
def test_frames_are_normalised_and_padded(device: torch.device) -> None:
    """Frames can have any dtype and size; the network gets (x - mean) / std, padded with zeros."""
    network = tiny_model().to(device).network
    images = [torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8), torch.rand(3, 33, 70) * 255]
    seen = []
    network.detr.features, features = lambda *x: (seen.extend(x), features(*x))[1], network.detr.features
    frames = network.encode(images)
    (batch,) = seen
    assert batch.shape == (2, 3, 64, 96) and frames.sizes.tolist() == [[60, 40], [70, 33]]
    mean, std = (123.675, 116.280, 103.530), (58.395, 57.120, 57.375)
    for padded, image in zip(batch.cpu(), images, strict=True):
        height, width = image.shape[-2:]
        for channel in range(3):
            expected = (image[channel].float() - mean[channel]) / std[channel]
            torch.testing.assert_close(padded[channel, :height, :width], expected)
        assert not padded[:, height:].any() and not padded[:, :, width:].any()


def test_means_are_not_part_of_checkpoints() -> None:
    """They still move with the network to another dtype or device."""
    model = tiny_model()
    assert not [name for name in model.state_dict() if "pixel" in name]
    assert model.double().network.pixel_mean.dtype == torch.float64
    assert model.device == model.network.device == torch.device("cpu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 48}, "`dim` must be a multiple of 32"),
        ({"num_heads": 3}, "`dim` must be a multiple of 32 and of `num_heads`, not 64"),
        ({"num_levels": 2}, "`num_levels` must be at least 3"),
        ({"decoder_layers": 0}, "`decoder_layers` must be at least 1"),
    ],
)
def test_invalid_sizes_are_refused(arguments: dict, message: str) -> None:
    sizes = {
        "dim": 64,
        "num_heads": 4,
        "feedforward_dim": 96,
        "dropout": 0.0,
        "num_levels": 4,
        "encoder_layers": 1,
        "encoder_points": 2,
        "decoder_layers": 1,
        "decoder_points": 2,
    }
    with pytest.raises(InputError, match=message):
        Transformer(**{**sizes, **arguments})
