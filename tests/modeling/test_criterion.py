from __future__ import annotations

import pytest
import torch

from seqformer.modeling.criterion import Criterion, LayerPrediction, dice_loss
from seqformer.modeling.matcher import HungarianMatcher, VideoTargets

WEIGHTS = {"loss_ce": 2.0, "loss_bbox": 5.0, "loss_giou": 2.0, "loss_mask": 2.0, "loss_dice": 5.0}


def make_targets(instances: int, device: torch.device, frames: int = 2) -> VideoTargets:
    boxes = torch.rand(frames, instances, 4) * 0.3 + 0.2
    masks = (torch.rand(instances, frames, 6, 8) > 0.5).float()
    classes = torch.randint(0, 3, (instances,))
    return VideoTargets(classes.to(device), boxes.to(device), masks.to(device))


def make_prediction(batch: int, device: torch.device, queries: int = 5) -> LayerPrediction:
    """Random logits and boxes that can have gradients."""
    logits, boxes = torch.randn(batch, queries, 3), torch.rand(batch, 2, queries, 4) * 0.4 + 0.1
    return LayerPrediction(logits.to(device).requires_grad_(), boxes.to(device).requires_grad_())


def test_every_group_of_queries_is_matched_with_all_instances(device: torch.device) -> None:
    targets = [make_targets(3, device), make_targets(2, device)]
    both = make_prediction(2, device, queries=10)
    logits, boxes = both.logits, both.boxes
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
def test_losses_are_finite_and_have_gradients(device: torch.device, instances: int) -> None:
    criterion = Criterion(HungarianMatcher(), WEIGHTS)
    targets = [make_targets(instances, device)]
    prediction = make_prediction(1, device)
    logits, boxes = prediction.logits, prediction.boxes
    matches = criterion.match(prediction, targets)
    masks = torch.randn(instances, 2, 6, 8).to(device).requires_grad_()
    losses = criterion.losses(prediction, matches, [masks], targets, criterion.normaliser(targets))
    assert set(losses) == set(WEIGHTS)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert logits.grad.abs().sum() > 0
    assert (boxes.grad.abs().sum() > 0) == (instances > 0)


def test_weights_and_normaliser_scale_losses(device: torch.device) -> None:
    targets = [make_targets(2, device)]
    prediction = make_prediction(1, device)
    masks = [torch.randn(2, 2, 6, 8).to(device)]
    plain = Criterion(HungarianMatcher(), dict.fromkeys(WEIGHTS, 1.0))
    weighted = Criterion(HungarianMatcher(), WEIGHTS)
    matches = plain.match(prediction, targets)
    one = plain.losses(prediction, matches, masks, targets, 1.0)
    other = weighted.losses(prediction, matches, masks, targets, 4.0)
    for name, weight in WEIGHTS.items():
        torch.testing.assert_close(other[name], one[name] * weight / 4)
