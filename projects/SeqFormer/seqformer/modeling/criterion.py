"""Losses of SeqFormer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from detectron2.utils import comm
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from seqformer.modeling.matcher import HungarianMatcher, VideoTargets, giou_loss

__all__ = ["Criterion", "LayerPrediction", "dice_loss"]


@dataclass
class LayerPrediction:
    """Predictions of one decoder layer for B videos.

    Attributes:
        logits: (B, Q, K).
        boxes: (B, T, Q, 4), cxcywh, normalised to the unpadded frame.
    """

    logits: Tensor
    boxes: Tensor


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Returns 1 - (2 intersection + 1) / (sum + 1) for each row of two (N, pixels) tensors, (N,)."""
    probability = logits.sigmoid()
    intersection = (probability * targets).sum(1)
    return 1 - (2 * intersection + 1) / (probability.sum(1) + targets.sum(1) + 1)


class Criterion:
    """Matches queries to instances and computes the weighted losses. Source: SeqFormer, section 3.4.

    Args:
        matcher: assigns queries to instances, for each layer and video.
        weights: weights of "loss_ce", "loss_bbox", "loss_giou", "loss_mask" and "loss_dice".
        alpha, gamma: parameters of the focal losses.
        groups: number of equal groups of queries, each matched to all instances on its own.
    """

    def __init__(
        self,
        matcher: HungarianMatcher,
        weights: dict[str, float],
        alpha: float = 0.25,
        gamma: float = 2.0,
        groups: int = 1,
    ):
        self.matcher = matcher
        self.weights = weights
        self.alpha = alpha
        self.gamma = gamma
        self.groups = groups

    def match(self, prediction: LayerPrediction, targets: list[VideoTargets]) -> list[tuple[Tensor, Tensor]]:
        """Returns indices of queries (all groups in order) and of their instances, for each video."""
        return [
            self._match_groups(logits, boxes, target)
            for logits, boxes, target in zip(prediction.logits, prediction.boxes, targets, strict=True)
        ]

    def _match_groups(self, logits: Tensor, boxes: Tensor, target: VideoTargets) -> tuple[Tensor, Tensor]:
        size = len(logits) // self.groups
        matches = [
            self.matcher(*group, target)
            for group in zip(logits.split(size), boxes.split(size, dim=1), strict=True)
        ]
        queries = torch.cat([queries + number * size for number, (queries, _) in enumerate(matches)])
        return queries, torch.cat([instances for _, instances in matches])

    def normaliser(self, targets: list[VideoTargets]) -> float:
        """Returns the instances in the batch, averaged over processes, at least 1, times ``groups``."""
        count = torch.as_tensor([float(sum(len(t.classes) for t in targets))], device=targets[0].boxes.device)
        if comm.get_world_size() > 1:
            torch.distributed.all_reduce(count)
        return max(count.item() / comm.get_world_size(), 1.0) * self.groups

    def losses(
        self,
        prediction: LayerPrediction,
        matches: list[tuple[Tensor, Tensor]],
        masks: list[Tensor],
        targets: list[VideoTargets],
        normaliser: float,
    ) -> dict[str, Tensor]:
        """Returns the weighted losses of one layer.

        Args:
            matches: as returned by :meth:`match`.
            masks: for each video, (G, T, h, w) logits of the matched queries in the order of ``matches``.
            normaliser: divides all sums.
        """
        logits = prediction.logits.float()
        onehot = torch.zeros_like(logits)
        for video, (queries, instances) in enumerate(matches):
            onehot[video, queries, targets[video].classes[instances]] = 1
        boxes = torch.cat(
            [b[:, q] for b, (q, _) in zip(prediction.boxes, matches, strict=True)], dim=1
        ).float()
        target_boxes = torch.cat([t.boxes[:, i] for t, (_, i) in zip(targets, matches, strict=True)], dim=1)
        num_frames = len(boxes)

        focal, dice = [], []
        for mask_logits, target, (_, instances) in zip(masks, targets, matches, strict=True):
            mask_logits = mask_logits.flatten(1).float()
            target_masks = target.masks[instances].flatten(1)
            focal.append(self._focal(mask_logits, target_masks).mean(1))
            dice.append(dice_loss(mask_logits, target_masks))

        losses = {
            "loss_ce": self._focal(logits, onehot).sum(),
            "loss_bbox": F.l1_loss(boxes, target_boxes, reduction="sum") / num_frames,
            "loss_giou": giou_loss(boxes, target_boxes).sum() / num_frames,
            "loss_mask": torch.cat(focal).sum(),
            "loss_dice": torch.cat(dice).sum(),
        }
        return {name: loss * self.weights[name] / normaliser for name, loss in losses.items()}

    def _focal(self, logits: Tensor, targets: Tensor) -> Tensor:
        return sigmoid_focal_loss(logits, targets, alpha=self.alpha, gamma=self.gamma)
