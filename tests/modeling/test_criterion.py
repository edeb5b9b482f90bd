from __future__ import annotations

import pytest
import torch

from seqformer.modeling.criterion import Criterion, LayerPrediction, dice_loss
from seqformer.modeling.matcher import HungarianMatcher, VideoTargets

WEIGHTS = {"loss_ce": 2.0, "loss_bbox": 5.0, "loss_giou": 2.0, "loss_mask": 2.0, "loss_dice": 5.0}


def make_targets(instances: int, frames: int = 2) -> VideoTargets:
    boxes = torch.rand(frames, instances, 4) * 0.3 + 0.2
    masks = (torch.rand(instances, frames, 6, 8) > 0.5).float()
    return VideoTargets(torch.randint(0, 3, (instances,)), boxes, masks)


def test_every_group_of_queries_is_matched_with_all_instances() -> None:
    targets = [make_targets(3), make_targets(2)]
    logits, boxes = torch.randn(2, 10, 3), torch.rand(2, 2, 10, 4) * 0.4 + 0.1
    halves = [LayerPrediction(logits[:, half], boxes[:, :, half]) for half in (slice(5), slice(5, 10))]
    first, second = (Criterion(HungarianMatcher(), WEIGHTS).match(half, targets) for half in halves)
    criterion = Criterion(HungarianMatcher(), WEIGHTS, groups=2)
    for video, (queries, instances) in enumerate(criterion.match(LayerPrediction(logits, boxes), targets)):
        assert torch.equal(queries, torch.cat((first[video][0], second[video][0] + 5)))
        assert torch.equal(instances, torch.cat((first[video][1], second[video][1])))
    assert criterion.normaliser(targets) == 2 * 5


def test_perfect_masks_have_no_dice_loss() -> None:
    masks = (torch.rand(4, 50) > 0.5).float()
    assert dice_loss((masks - 0.5) * 200, masks).abs().max() < 1e-5
    assert dice_loss((0.5 - masks) * 200, masks).min() > 0.9


@pytest.mark.parametrize("instances", [0, 2])
def test_losses_are_finite_and_have_gradients(instances: int) -> None:
    criterion = Criterion(HungarianMatcher(), WEIGHTS)
    targets = [make_targets(instances)]
    logits = torch.randn(1, 5, 3, requires_grad=True)
    boxes = (torch.rand(1, 2, 5, 4) * 0.4 + 0.1).requires_grad_()
    prediction = LayerPrediction(logits, boxes)
    matches = criterion.match(prediction, targets)
    masks = torch.randn(instances, 2, 6, 8, requires_grad=True)
    losses = criterion.losses(prediction, matches, [masks], targets, criterion.normaliser(targets))
    assert set(losses) == set(WEIGHTS)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert logits.grad.abs().sum() > 0
    assert (boxes.grad.abs().sum() > 0) == (instances > 0)


def test_weights_and_normaliser_scale_losses() -> None:
    targets = [make_targets(2)]
    prediction = LayerPrediction(torch.randn(1, 5, 3), torch.rand(1, 2, 5, 4) * 0.4 + 0.1)
    masks = [torch.randn(2, 2, 6, 8)]
    plain = Criterion(HungarianMatcher(), dict.fromkeys(WEIGHTS, 1.0))
    weighted = Criterion(HungarianMatcher(), WEIGHTS)
    matches = plain.match(prediction, targets)
    one = plain.losses(prediction, matches, masks, targets, 1.0)
    other = weighted.losses(prediction, matches, masks, targets, 4.0)
    for name, weight in WEIGHTS.items():
        torch.testing.assert_close(other[name], one[name] * weight / 4)
