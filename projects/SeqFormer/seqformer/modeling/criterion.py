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
    """What one decoder layer predicts for B videos.

    Attributes:
        logits: (B, Q, K).
        boxes: (B, T, Q, 4), cxcywh, normalised to the unpadded frame.
    """

    logits: Tensor
    boxes: Tensor


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """1 - (2 intersection + 1) / (sum + 1) of each row: (N, pixels) twice -> (N,)."""
    probability = logits.sigmoid()
    intersection = (probability * targets).sum(1)
    return 1 - (2 * intersection + 1) / (probability.sum(1) + targets.sum(1) + 1)


class Criterion:
    """Matches every layer's queries and weighs the losses. Source: SeqFormer, section 3.4.

    Args:
        matcher: assigns queries to instances, layer by layer and video by video.
        weights: of "loss_ce", "loss_bbox", "loss_giou", "loss_mask" and "loss_dice".
        alpha, gamma: of the focal losses.
        groups: equal parts of the queries; each is matched with all instances by itself.
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
        """Queries and the instances they are matched to, video by video, in each group after group."""
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
        """Instances in the batch, averaged over workers, at least 1; times the groups that find them."""
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
        """Weighted losses of one layer.

        Args:
            matches: as :meth:`match` gives them.
            masks: (G, T, h, w) logits of the matched queries, in the order of ``matches``, video by video.
            normaliser: what all sums are divided by.
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
        for drawn, target, (_, instances) in zip(masks, targets, matches, strict=True):
            drawn = drawn.flatten(1).float()
            wanted = target.masks[instances].flatten(1)
            focal.append(self._focal(drawn, wanted).mean(1))
            dice.append(dice_loss(drawn, wanted))

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
