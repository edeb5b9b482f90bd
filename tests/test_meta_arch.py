from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from networks import tiny_config, tiny_model, two_moving_squares

from seqformer.errors import InputError
from seqformer.inference.options import InferenceOptions
from seqformer.tracking import MotionOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"HIDDEN_DIM": 40}, "HIDDEN_DIM must be a multiple of 32 and of MODEL.SeqFormer.NHEADS"),
        ({"NUM_FEATURE_LEVELS": 2}, "NUM_FEATURE_LEVELS must be at least 3, not 2"),
        ({"NHEADS": 0}, "NHEADS must be at least 1"),
        ({"MASK_STRIDE": 8}, "MASK_STRIDE and MATCH_STRIDE must be 4"),
        ({"RESULT_PROTOCOL": "best"}, "RESULT_PROTOCOL must be one of queries, pairs, original, not 'best'"),
        ({"APPLY_CLS_THRES": 1.5}, "APPLY_CLS_THRES must be at least 0 and at most 1, not 1.5"),
        ({"CLIP_LENGTH": 0}, "CLIP_LENGTH must be at least 1, not 0"),
        ({"CLIP_STRIDE": 0}, "CLIP_STRIDE must be at least 1"),
        ({"DUPLICATE_IOU": 0.0}, "DUPLICATE_IOU must be above 0"),
        ({"MOTION_WEIGHT": 1.0}, "MOTION_WEIGHT must be at least 0 and below 1, not 1.0"),
        ({"MOTION_WEIGHT": 0.5, "CLIP_LENGTH": 1}, "CLIP_LENGTH must be at least 2 if motion is used"),
        ({"MOTION_MEMORY": -1}, "MOTION_MEMORY must be at least 0"),
        ({"MOTION_SEARCH_RADIUS": 0.0}, "MOTION_SEARCH_RADIUS must be above 0"),
        ({"QUERY_GROUPS": 0}, "QUERY_GROUPS must be at least 1"),
        ({"TRAIN_NUM_POINTS": -1}, "TRAIN_NUM_POINTS must be at least 1, not -1"),
        ({"TRAIN_NUM_POINTS": 9, "OVERSAMPLE_RATIO": 0.5}, "OVERSAMPLE_RATIO must be at least 1"),
        ({"AUTO_MEMORY_GB": -1.0}, "AUTO_MEMORY_GB must be at least 0"),
        ({"MAX_LIVE_INSTANCES": -1}, "MAX_LIVE_INSTANCES must be at least 0"),
    ],
)
def test_invalid_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=f"^MODEL.SeqFormer.{message}"):
        build_model(tiny_config(**options))


def test_every_option_of_tracking_has_a_key() -> None:
    """Defaults of the config and of the dataclasses are the same."""
    assert build_model(tiny_config()).options == InferenceOptions()
    assert build_model(tiny_config(MOTION_WINDOW=7)).options.motion == MotionOptions(window=7)


def test_identical_query_groups_have_the_losses_of_one(device: torch.device) -> None:
    one, two = (tiny_model(QUERY_GROUPS=groups, DROPOUT=0.0).to(device) for groups in (1, 2))
    two.load_state_dict(one.state_dict())
    with torch.no_grad():
        two.detr.detr.training_query_embed.weight.copy_(two.detr.detr.query_embed.weight)
    clip = two_moving_squares()
    torch.testing.assert_close(two.train()([clip]), one.train()([clip]), rtol=1e-4, atol=1e-5)
    one.load_state_dict(two.state_dict())


def test_result_contract(device: torch.device) -> None:
    model = tiny_model(APPLY_CLS_THRES=0.0).to(device)
    result = model([{"image": [torch.rand(3, 40, 60) * 255] * 2, "height": 80, "width": 120, "length": 2}])
    contract = {"image_size", "pred_scores", "pred_labels", "pred_masks"}
    assert set(result) == contract | {"video_result"}
    assert result["image_size"] == (80, 120)
    assert len(result["pred_scores"]) == 10 * 7  # queries times classes
    assert all(isinstance(score, float) for score in result["pred_scores"])
    assert set(result["pred_labels"]) == set(range(7))
    assert all(mask.shape == (2, 80, 120) and mask.dtype == torch.bool for mask in result["pred_masks"])


def test_the_video_result_is_the_same(device: torch.device) -> None:
    """It has RLEs of the same masks at output size. Classes of one instance share RLEs and tensors."""
    model = tiny_model(APPLY_CLS_THRES=0.009).to(device)
    output = model([{"image": [torch.rand(3, 40, 60) * 255] * 3, "height": 80, "width": 120}])
    result = output["video_result"]
    assert (result.height, result.width, result.length) == (80, 120, 3) and len(result.tracklets) > 3
    assert [t.score for t in result.tracklets] == output["pred_scores"]
    assert [t.label for t in result.tracklets] == output["pred_labels"]
    for tracklet, masks in zip(result.tracklets, output["pred_masks"], strict=True):
        assert torch.equal(torch.from_numpy(np.stack([tracklet.masks(t) for t in range(3)])), masks)
    ids = [t.instance_id for t in result.tracklets]
    assert len({id(masks) for masks in output["pred_masks"]}) == len(set(ids)) < len(ids)


def test_original_protocol_returns_ten_pairs(device: torch.device) -> None:
    model = tiny_model(RESULT_PROTOCOL="pairs").to(device)
    result = model([{"image": [torch.rand(3, 40, 60) * 255] * 2}])
    scores = result["pred_scores"]
    assert len(scores) == len(result["pred_masks"]) == 10
    assert scores == sorted(scores, reverse=True)


def test_whole_video_is_one_clip_as_long_as_the_video(device: torch.device) -> None:
    torch.manual_seed(0)
    whole = tiny_model(APPLY_CLS_THRES=0.0).to(device)
    torch.manual_seed(0)
    clips = tiny_model(APPLY_CLS_THRES=0.0, CLIP_MATCHING=True, CLIP_LENGTH=6).to(device)
    video = [{"image": [torch.rand(3, 40, 60) * 255 for _ in range(6)]}]
    first, second = whole(video), clips(video)
    assert len(first["pred_scores"]) == 10 * 7
    assert first["pred_scores"] == second["pred_scores"]
    for a, b in zip(first["pred_masks"], second["pred_masks"], strict=True):
        assert torch.equal(a, b)


def test_inference_takes_one_video() -> None:
    with pytest.raises(ValueError, match="one video at a time"):
        tiny_model()([{"image": []}, {"image": []}])


@pytest.mark.parametrize("deep", [True, False])
def test_deep_supervision(device: torch.device, deep: bool) -> None:
    losses = tiny_model(DEEP_SUPERVISION=deep).to(device).train()([two_moving_squares()])
    assert len(losses) == 5 * (3 if deep else 1)


def test_sampled_points_change_the_mask_losses_alone(device: torch.device) -> None:
    losses = []
    for points in (0, 100):
        torch.manual_seed(0)
        model = tiny_model(TRAIN_NUM_POINTS=points, DROPOUT=0.0).to(device).train()
        losses.append(model([two_moving_squares()]))
    sum(losses[1].values()).backward()
    assert model.network.mask_head.lay1.weight.grad.abs().sum() > 0
    for name, dense in losses[0].items():
        of_mask = name.startswith(("loss_mask", "loss_dice"))
        assert torch.equal(losses[1][name], dense) != of_mask


def test_recomputed_layers_give_the_same_losses_and_gradients(device: torch.device, slack: float) -> None:
    results, calls = [], []
    for recompute in (False, True):
        torch.manual_seed(0)
        model = tiny_model(GRADIENT_CHECKPOINTING=recompute, DROPOUT=0.1).to(device).train()
        transformer = model.network.detr.transformer
        layers = [*transformer.encoder.layers, *transformer.decoder.layers]
        calls.append([])
        for layer in layers:
            layer.register_forward_pre_hook(lambda *_, count=calls[-1]: count.append(1))
        torch.manual_seed(1)
        losses = model([two_moving_squares()])
        sum(losses.values()).backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        results.append((losses, gradients))
    assert [len(count) for count in calls] == [2 + 3, 2 * (2 + 3)]
    for first, second in zip(*results, strict=True):
        assert first.keys() == second.keys()
        for name in first:
            # On GPUs, sums of gradients have no fixed order.
            tolerance = {"rtol": 1.3e-6 * slack, "atol": 1e-5 * slack**2}
            torch.testing.assert_close(first[name], second[name], msg=name, **tolerance)
