"""Losses of SeqFormer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from detectron2.utils import comm
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from seqformer.modeling.matcher import HungarianMatcher, Matches, Predictions, Targets, giou_loss

__all__ = ["Criterion", "dice_loss"]


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Returns 1 - (2 intersection + 1) / (sum + 1) for each row of two (N, pixels) tensors, (N,)."""
    probability = logits.sigmoid()
    intersection = (probability * targets).sum(1)
    return 1 - (2 * intersection + 1) / (probability.sum(1) + targets.sum(1) + 1)


class Criterion:
    """Matches queries to instances and computes the weighted losses. Source: SeqFormer, section 3.4.

    Args:
        matcher: assigns queries to instances, for each layer, video and group of queries.
        weights: weights of "loss_ce", "loss_bbox", "loss_giou", "loss_mask" and "loss_dice".
        alpha, gamma: parameters of the focal losses.
    """

    def __init__(
        self, matcher: HungarianMatcher, weights: dict[str, float], alpha: float = 0.25, gamma: float = 2.0
    ):
        self.matcher = matcher
        self.weights = weights
        self.alpha = alpha
        self.gamma = gamma

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
        mask_logits = masks.flatten(1).float()
        target_masks = targets.masks[matches.instances].flatten(1)
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
