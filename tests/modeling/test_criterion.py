from __future__ import annotations

import pytest
import torch

from seqformer.errors import InputError
from seqformer.modeling.criterion import Criterion, SampledPoints, dice_loss
from seqformer.modeling.matcher import HungarianMatcher, Predictions, Targets

WEIGHTS = {"loss_ce": 2.0, "loss_bbox": 5.0, "loss_giou": 2.0, "loss_mask": 2.0, "loss_dice": 5.0}


def make_targets(device: torch.device, *counts: int, frames: int = 2) -> Targets:
    total = sum(counts)
    boxes = torch.rand(total, frames, 4) * 0.3 + 0.2
    masks = (torch.rand(total, frames, 6, 8) > 0.5).float()
    classes = torch.randint(0, 3, (total,))
    return Targets(classes, boxes, masks, list(counts)).to(device)


def make_predictions(device: torch.device, layers: int, videos: int, frames: int = 2) -> Predictions:
    boxes = torch.rand(layers, videos, frames, 5, 4) * 0.4 + 0.1
    logits = torch.randn(layers, videos, 5, 3)
    return Predictions(logits.to(device).requires_grad_(), boxes.to(device).requires_grad_())


def test_perfect_masks_have_no_dice_loss() -> None:
    masks = (torch.rand(4, 50) > 0.5).float()
    assert dice_loss((masks - 0.5) * 200, masks).abs().max() < 1e-5
    assert dice_loss((0.5 - masks) * 200, masks).min() > 0.9


@pytest.mark.parametrize("points", [None, SampledPoints(10)], ids=["dense", "points"])
@pytest.mark.parametrize("instances", [0, 2])
def test_losses_are_finite_and_have_gradients(
    device: torch.device, instances: int, points: SampledPoints | None
) -> None:
    criterion = Criterion(HungarianMatcher(), WEIGHTS, points=points)
    targets = make_targets(device, instances)
    predictions = make_predictions(device, 1, 1)
    matches = criterion.matcher(predictions, targets)
    masks = torch.randn(instances, 2, 6, 8).to(device).requires_grad_()
    losses = criterion.losses(predictions, matches, masks, targets, criterion.normaliser(targets))
    assert set(losses) == set(WEIGHTS)
    torch.cat(list(losses.values())).sum().backward()
    assert all(loss.isfinite().all() for loss in losses.values())
    assert predictions.logits.grad.abs().sum() > 0
    assert (predictions.boxes.grad.abs().sum() > 0) == (instances > 0)
    assert (masks.grad.abs().sum() > 0) == (instances > 0)


def test_losses_of_videos_and_layers_add_up(device: torch.device) -> None:
    """A layer's losses are the sums of those of its videos, each computed alone."""
    criterion = Criterion(HungarianMatcher(), WEIGHTS)
    targets, predictions = make_targets(device, 3, 0, 1), make_predictions(device, 2, 3)
    matches = criterion.matcher(predictions, targets)
    assert matches.counts == [6, 0, 2]
    masks = torch.randn(8, 2, 6, 8).to(device)
    losses = criterion.losses(predictions, matches, masks, targets, 1.0)
    expected = {name: torch.zeros(2, device=device) for name in WEIGHTS}
    for layer in range(2):
        for video, instances in enumerate((slice(0, 3), slice(3, 3), slice(3, 4))):
            alone = Predictions(
                predictions.logits[layer, video][None, None], predictions.boxes[layer, video][None, None]
            )
            target = Targets(
                targets.classes[instances],
                targets.boxes[instances],
                targets.masks[instances],
                [instances.stop - instances.start],
            )
            chosen = (matches.layers == layer) & (matches.videos == video)
            match = criterion.matcher(alone, target)
            assert torch.equal(match.queries, matches.queries[chosen])
            assert torch.equal(match.instances + instances.start, matches.instances[chosen])
            for name, loss in criterion.losses(alone, match, masks[chosen], target, 1.0).items():
                expected[name][layer] += loss[0]
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name])


def test_weights_and_normaliser_scale_losses(device: torch.device) -> None:
    targets, predictions = make_targets(device, 2), make_predictions(device, 1, 1)
    masks = torch.randn(2, 2, 6, 8).to(device)
    plain = Criterion(HungarianMatcher(), dict.fromkeys(WEIGHTS, 1.0))
    weighted = Criterion(HungarianMatcher(groups=1), WEIGHTS)
    matches = plain.matcher(predictions, targets)
    one = plain.losses(predictions, matches, masks, targets, 1.0)
    other = weighted.losses(predictions, matches, masks, targets, 4.0)
    for name, weight in WEIGHTS.items():
        torch.testing.assert_close(other[name], one[name] * weight / 4)


def test_the_normaliser_is_the_number_of_instances_times_the_groups(device: torch.device) -> None:
    assert Criterion(HungarianMatcher(groups=2), WEIGHTS).normaliser(make_targets(device, 3, 2)) == 2 * 5
    assert Criterion(HungarianMatcher(), WEIGHTS).normaliser(make_targets(device, 0)) == 1


def smooth(device: torch.device, *size: int) -> torch.Tensor:
    """Random values that change by little from cell to cell."""
    return torch.nn.functional.interpolate(torch.randn(*size[:-2], 5, 7), size=size[-2:], mode="bilinear").to(
        device
    )


def test_many_random_points_give_the_dense_mask_losses(device: torch.device) -> None:
    torch.manual_seed(0)
    logits, masks = smooth(device, 3, 2, 48, 64) * 3, (smooth(device, 3, 2, 48, 64) > 0).float()
    points = SampledPoints(20_000, importance_sample_ratio=0.0)
    chosen, targets = points(logits, masks)
    assert chosen.shape == targets.shape == (3, 2 * 20_000)
    torch.testing.assert_close(
        dice_loss(chosen, targets), dice_loss(logits.flatten(1), masks.flatten(1)), rtol=0, atol=0.02
    )
    torch.testing.assert_close(targets.mean(1), masks.flatten(1).mean(1), rtol=0, atol=0.02)


def test_logits_and_targets_are_sampled_at_the_same_points(device: torch.device) -> None:
    masks = smooth(device, 4, 3, 24, 40)
    for chosen in zip(*SampledPoints(50)(masks, masks), strict=True):
        assert torch.equal(*chosen)


def test_most_points_are_where_the_logits_are_near_zero(device: torch.device) -> None:
    torch.manual_seed(0)
    logits = smooth(device, 2, 2, 48, 64) * 3
    for ratio, expected in ((0.0, 2000), (0.5, 1000), (1.0, 0)):
        chosen, _ = SampledPoints(500, 10.0, ratio)(logits, logits)
        far = logits.abs().flatten().quantile(0.5)
        assert abs((chosen.abs() > far).sum().item() * 2 - expected) < 150


def test_points_are_checked() -> None:
    for values in ((0,), (2.5,), (10, 0.5), (10, 3.0, 1.5), (10, 3.0, -0.1)):
        with pytest.raises(InputError, match="must be"):
            SampledPoints(*values)
