"""Traces agree with what the network computes, and tracing does not change results."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import tiny_config, tiny_model
from pycocotools import mask as mask_codec
from torch import Tensor

from seqformer.errors import InputError
from seqformer.inference import Trace, VideoPredictor, trace
from seqformer.inference.tracing import record_sampling
from seqformer.meta_arch import SeqFormer
from seqformer.ops.reference import ms_deform_attn_reference

T, Q, K = 5, 30, 7
D, M, L, P = 3, 4, 4, 4


def stirred_model(**seqformer: object) -> SeqFormer:
    """A tiny model whose queries, offsets, weights and boxes differ, as after training.

    A fresh network has offsets that depend on nothing, equal weights and boxes that stay where they are.
    """
    model = tiny_model(NUM_OBJECT_QUERIES=Q, **seqformer)
    for name, parameter in model.network.detr.named_parameters():
        if any(part in name for part in ("sampling_offsets", "attention_weights", "bbox_embed", "time_att")):
            torch.nn.init.normal_(parameter, std=0.3)
    for head in model.network.detr.class_embed:
        torch.nn.init.constant_(head.bias, -1.0)
    return model


def images(count: int = T, size: tuple[int, int] = (64, 96)) -> list[Tensor]:
    return list(torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8))


@pytest.fixture(scope="module")
def model() -> SeqFormer:
    torch.manual_seed(0)
    return stirred_model()


@pytest.fixture(scope="module")
def frames() -> list[Tensor]:
    """Frames that are padded right and bottom: 70 x 100 becomes 96 x 128."""
    torch.manual_seed(1)
    return images(size=(70, 100))


@pytest.fixture(scope="module")
def traced(model: SeqFormer, frames: list[Tensor]) -> Trace:
    return trace(model.network, model.options, frames)


def test_shapes(traced: Trace) -> None:
    assert traced.sampling_locations.shape == (D, T, Q, M, L, P, 2)
    assert traced.attention_weights.shape == (D, T, Q, M, L, P)
    assert traced.reference_points.shape == (T, Q, 2)
    assert traced.boxes.shape == (D, T, Q, 4)
    assert traced.temporal_weights.shape == (D, T, Q)
    assert traced.class_probabilities.shape == (D, Q, K)
    assert traced.queries.shape == traced.labels.shape == traced.scores.shape == (10,)
    assert len(traced.segmentations) == 10 and all(len(track) == T for track in traced.segmentations)
    assert (traced.num_layers, traced.num_frames, traced.num_levels) == (D, T, L)
    arrays = [value for value in vars(traced).values() if isinstance(value, np.ndarray)]
    assert [array.dtype for array in arrays if array is not traced.queries] == [np.float32] * 6


def test_weights_sum_to_one(traced: Trace) -> None:
    np.testing.assert_allclose(traced.attention_weights.sum((-2, -1)), 1, atol=1e-5)
    np.testing.assert_allclose(traced.temporal_weights.sum(1), 1, atol=1e-5)
    assert traced.attention_weights.min() >= 0 and traced.temporal_weights.min() >= 0


def test_all_frames_share_the_first_layers_points_alone(traced: Trace) -> None:
    """Layer 1 has one box query for all frames; from layer 2 on each frame has its own."""
    for array in (traced.sampling_locations, traced.attention_weights):
        np.testing.assert_allclose(array[0], array[0, :1].repeat(T, axis=0), atol=1e-5)
        for layer in (1, 2):
            assert np.abs(array[layer, 1] - array[layer, 0]).max() > 1e-3


def test_points_surround_their_reference_points(model: SeqFormer, frames: list[Tensor]) -> None:
    """Without offsets every point equals its reference point, whatever the padding."""
    still = stirred_model()
    for layer in still.network.detr.transformer.decoder.layers:
        torch.nn.init.zeros_(layer.cross_attn.sampling_offsets.weight)
        torch.nn.init.zeros_(layer.cross_attn.sampling_offsets.bias)
    traced = trace(still.network, still.options, frames, with_masks=False)
    for layer in (1, 2, 3):
        centres = traced.references(layer)[..., None, None, None, :2]
        wanted = np.broadcast_to(centres, (T, Q, M, L, P, 2))
        np.testing.assert_allclose(traced.sampling_locations[layer - 1], wanted, atol=1e-5)
    assert traced.references(1).shape == (T, Q, 2)
    np.testing.assert_array_equal(traced.references(3), traced.boxes[1])
    assert np.abs(traced.boxes[1] - traced.boxes[0]).max() > 1e-3
    assert traced.segmentations is None


@torch.no_grad()
def test_features_sampled_at_the_points_are_what_the_operator_gives(
    model: SeqFormer, frames: list[Tensor]
) -> None:
    layers = model.network.detr.transformer.decoder.layers
    calls = []
    handles = [
        layer.cross_attn.register_forward_hook(lambda module, inputs, output: calls.append((inputs, output)))
        for layer in layers
    ]
    encoded = model.encode(frames)
    with record_sampling(layers) as sampled:
        model.network.decode(encoded, T)
    for handle in handles:
        handle.remove()
    assert len(sampled) == len(calls) == D
    for layer, points, (inputs, output) in zip(layers, sampled, calls, strict=True):
        _, _, memory, padding_mask, levels = inputs
        value = layer.cross_attn.value_proj(memory).masked_fill(padding_mask.unsqueeze(-1), 0.0)
        value = value.unflatten(-1, (M, -1))
        again = ms_deform_attn_reference(
            value, levels.spatial_shapes, levels.start_index, points.locations, points.weights
        )
        assert output.abs().max() > 0.1
        torch.testing.assert_close(again, output, rtol=1e-4, atol=1e-5)


def test_results_are_those_without_tracing(model: SeqFormer, frames: list[Tensor]) -> None:
    video = [{"image": frames, "height": 40, "width": 50}]
    before = model(video)
    traced = trace(model.network, model.options, frames, (40, 50))
    after = model(video)
    assert len(before["pred_scores"]) > 10
    assert before["pred_scores"] == after["pred_scores"]
    for first, second in zip(before["pred_masks"], after["pred_masks"], strict=True):
        assert torch.equal(first, second)

    # Results are sorted by instance, best first, each with all classes above the threshold.
    probabilities = traced.class_probabilities[-1, traced.queries]
    above = probabilities > model.options.threshold
    np.testing.assert_allclose(before["pred_scores"], probabilities[above], atol=1e-6)
    assert before["pred_labels"] == np.nonzero(above)[1].tolist()
    for instance, masks in zip(np.nonzero(above)[0], before["pred_masks"], strict=True):
        for rle, mask in zip(traced.segmentations[instance], masks.numpy(), strict=True):
            assert (rle is None) == (not mask.any())
            assert rle is None or np.array_equal(mask_codec.decode(rle), mask)


def hooks(model: SeqFormer) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_no_hook_is_left_behind(model: SeqFormer, frames: list[Tensor], monkeypatch) -> None:
    before = hooks(model)
    trace(model.network, model.options, frames[:1])
    assert hooks(model) == before
    layers = model.network.detr.transformer.decoder.layers
    with record_sampling(layers):
        assert hooks(model) == before + D
    monkeypatch.setattr(layers[1], "forward", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trace(model.network, model.options, frames[:1])
    assert hooks(model) == before


def test_frames_are_one_clip_whatever_the_options(frames: list[Tensor], model: SeqFormer) -> None:
    in_clips = stirred_model(CLIP_MATCHING=True, CLIP_LENGTH=2, CLIP_STRIDE=1)
    in_clips.load_state_dict(model.state_dict())
    whole, again = (
        trace(m.network, m.options, frames, with_masks=False).temporal_weights for m in (model, in_clips)
    )
    np.testing.assert_array_equal(whole, again)


def test_invalid_indices(traced: Trace, model: SeqFormer) -> None:
    with pytest.raises(InputError, match="no decoder layer 0: the model has 1 to 3"):
        traced.references(0)
    with pytest.raises(InputError, match="no decoder layer 4"):
        traced.check_layer(4)
    with pytest.raises(InputError, match="no instance 10: the model keeps 0 to 9"):
        traced.check_instance(10)
    with pytest.raises(InputError, match="no frames"):
        trace(model.network, model.options, [])


def test_predictor_resizes_frames(model: SeqFormer, tmp_path) -> None:
    cfg = tiny_config(NUM_OBJECT_QUERIES=Q)
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 48, 96
    cfg.MODEL.WEIGHTS = str(tmp_path / "model.pth")
    torch.save({"model": model.state_dict()}, cfg.MODEL.WEIGHTS)
    predictor = VideoPredictor(cfg)
    video = list(np.random.default_rng(0).integers(0, 256, (3, 60, 80, 3), dtype=np.uint8))
    traced = predictor.trace(video)
    assert {tuple(rle["size"]) for track in traced.segmentations for rle in track if rle} == {(60, 80)}
    resize = predictor.resize.get_transform(video[0])
    resized = [torch.from_numpy(resize.apply_image(f).transpose(2, 0, 1).copy()) for f in video]
    expected = trace(predictor.network, predictor.options, resized)
    np.testing.assert_array_equal(traced.sampling_locations, expected.sampling_locations)
    with pytest.raises(InputError, match="all frames must have the same size"):
        predictor.trace([video[0], video[1][:, :60]])
    with pytest.raises(InputError, match="no frames"):
        predictor.trace([])
