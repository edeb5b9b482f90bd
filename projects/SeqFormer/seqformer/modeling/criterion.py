"""Losses of SeqFormer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from detectron2.projects.point_rend.point_features import (
    get_uncertain_point_coords_with_randomness,
    point_sample,
)
from detectron2.utils import comm
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from seqformer.errors import check_number
from seqformer.modeling.matcher import HungarianMatcher, Matches, Predictions, Targets, giou_loss

__all__ = ["Criterion", "SampledPoints", "dice_loss"]


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Returns 1 - (2 intersection + 1) / (sum + 1) for each row of two (N, pixels) tensors, (N,)."""
    probability = logits.sigmoid()
    intersection = (probability * targets).sum(1)
    return 1 - (2 * intersection + 1) / (probability.sum(1) + targets.sum(1) + 1)


@dataclass(frozen=True)
class SampledPoints:
    """Random points at which masks are compared. Source: PointRend, section 3.1, "Training".

    Attributes:
        num_points: points of a mask in a frame, P.
        oversample_ratio: uncertain points are chosen among this many times P.
        importance_sample_ratio: share of points that are chosen for their uncertainty, logits near zero.

    Raises:
        InputError: if a number is out of its range.
    """

    num_points: int
    oversample_ratio: float = 3.0
    importance_sample_ratio: float = 0.75

    def __post_init__(self) -> None:
        check_number("num_points", self.num_points, integer=True, at_least=1)
        check_number("oversample_ratio", self.oversample_ratio, at_least=1)
        check_number("importance_sample_ratio", self.importance_sample_ratio, at_least=0, at_most=1)

    def __call__(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Samples logits and targets, both (M, T, h, w), at the same points, (M, T * P) each."""
        num_masks = len(logits)
        logits, targets = (masks.flatten(0, 1).unsqueeze(1) for masks in (logits, targets))
        with torch.no_grad():
            points = get_uncertain_point_coords_with_randomness(
                logits, _uncertainty, self.num_points, self.oversample_ratio, self.importance_sample_ratio
            )
        sampled = (point_sample(masks, points, align_corners=False) for masks in (logits, targets))
        first, second = (values.reshape(num_masks, -1) for values in sampled)
        return first, second


def _uncertainty(logits: Tensor) -> Tensor:
    return -logits.abs()


class Criterion:
    """Matches queries to instances and computes the weighted losses. Source: SeqFormer, section 3.4.

    Args:
        matcher: assigns queries to instances, for each layer, video and group of queries.
        weights: weights of "loss_ce", "loss_bbox", "loss_giou", "loss_mask" and "loss_dice".
        alpha, gamma: parameters of the focal losses.
        points: where masks are compared; None for all cells, as published.
    """

    def __init__(
        self,
        matcher: HungarianMatcher,
        weights: dict[str, float],
        alpha: float = 0.25,
        gamma: float = 2.0,
        points: SampledPoints | None = None,
    ):
        self.matcher = matcher
        self.weights = weights
        self.alpha = alpha
        self.gamma = gamma
        self.points = points

    def normaliser(self, targets: Targets) -> float:
        """Returns the instances in the batch, averaged over processes, at least 1, times the groups."""
        count = float(len(targets.classes))
        if comm.get_world_size() > 1:
            total = torch.as_tensor([count], device=targets.boxes.device)
            torch.distributed.all_reduce(total)
            count = total.item() / comm.get_world_size()
        return max(count, 1.0) * self.matcher.groups

    def losses(
        self,
        predictions: Predictions,
        matches: Matches,
        masks: Tensor,
        targets: Targets,
        normaliser: float,
    ) -> dict[str, Tensor]:
        """Returns the weighted losses of all layers, (L,) each.

        Args:
            matches: as returned by the matcher.
            masks: (M, T, h, w) logits of the matched queries.
            normaliser: divides all sums.
        """
        logits = predictions.logits.float()
        onehot = torch.zeros_like(logits)
        pairs = (matches.layers, matches.videos)
        onehot[(*pairs, matches.queries, targets.classes[matches.instances])] = 1
        boxes = predictions.boxes[(*pairs, slice(None), matches.queries)].float()  # M, T, 4
        target_boxes = targets.boxes[matches.instances]
        num_frames = boxes.shape[1]
        masks, target_masks = masks.float(), targets.masks[matches.instances]
        if self.points and len(masks):
            mask_logits, target_masks = self.points(masks, target_masks)
        else:
            mask_logits, target_masks = masks.flatten(1), target_masks.flatten(1)
        pair_losses = {
            "loss_bbox": F.l1_loss(boxes, target_boxes, reduction="none").sum((1, 2)) / num_frames,
            "loss_giou": giou_loss(boxes, target_boxes).sum(1) / num_frames,
            "loss_mask": self._focal(mask_logits, target_masks).mean(1),
            "loss_dice": dice_loss(mask_logits, target_masks),
        }
        of_layer = matches.layers == torch.arange(len(logits), device=logits.device)[:, None]  # L, M
        losses = {"loss_ce": self._focal(logits, onehot).sum((1, 2, 3))}
        for name, loss in pair_losses.items():
            losses[name] = torch.where(of_layer, loss, 0.0).sum(1)
        return {name: loss * self.weights[name] / normaliser for name, loss in losses.items()}

    def _focal(self, logits: Tensor, targets: Tensor) -> Tensor:
        return sigmoid_focal_loss(logits, targets, alpha=self.alpha, gamma=self.gamma)
