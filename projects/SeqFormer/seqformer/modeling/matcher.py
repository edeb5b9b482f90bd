"""Assignment of queries to ground-truth instances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou_loss

from seqformer.errors import DivergedError

__all__ = ["HungarianMatcher", "VideoTargets", "giou_loss"]


def giou_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """Returns 1 - generalised IoU of normalised boxes (..., 4) cxcywh. Leading dimensions broadcast."""
    boxes, targets = torch.broadcast_tensors(boxes, targets)
    return generalized_box_iou_loss(
        box_convert(boxes, "cxcywh", "xyxy"), box_convert(targets, "cxcywh", "xyxy"), eps=1e-12
    )


@dataclass
class VideoTargets:
    """Ground truth of one video.

    Attributes:
        classes: (G,) int64.
        boxes: (T, G, 4), cxcywh normalised to the unpadded frame; zero where not visible.
        masks: (G, T, h, w) float, at stride 4 of the padded frame; zero where not visible.
    """

    classes: Tensor
    boxes: Tensor
    masks: Tensor


class HungarianMatcher:
    """Matches by class, box and generalised-IoU costs over a whole video. Source: SeqFormer, section 3.4.

    Args:
        class_cost, box_cost, giou_cost: weights of the costs.
        alpha, gamma: parameters of the focal loss.
    """

    def __init__(
        self,
        class_cost: float = 2.0,
        box_cost: float = 5.0,
        giou_cost: float = 2.0,
        alpha: float = 0.25,
        gamma: float = 2.0,
    ):
        self.class_cost = class_cost
        self.box_cost = box_cost
        self.giou_cost = giou_cost
        self.alpha = alpha
        self.gamma = gamma

    @torch.no_grad()
    def __call__(self, logits: Tensor, boxes: Tensor, targets: VideoTargets) -> tuple[Tensor, Tensor]:
        """Matches the queries of one video.

        Args:
            logits: (Q, K).
            boxes: (T, Q, 4), cxcywh, normalised.

        Returns:
            indices of queries and of their matched instances, (G,) each.

        Raises:
            DivergedError: if a cost is not finite.
        """
        probability = logits.float().sigmoid()
        positive = self.alpha * (1 - probability) ** self.gamma * -(probability + 1e-8).log()
        negative = (1 - self.alpha) * probability**self.gamma * -(1 - probability + 1e-8).log()
        cost_class = (positive - negative)[:, targets.classes]

        boxes = boxes.float()
        cost_box = torch.cdist(
            boxes.transpose(0, 1).flatten(1), targets.boxes.transpose(0, 1).flatten(1), p=2
        )
        cost_giou = giou_loss(boxes.unsqueeze(2), targets.boxes.unsqueeze(1)).mean(0) - 1
        cost = self.class_cost * cost_class + self.box_cost * cost_box + self.giou_cost * cost_giou
        costs = cost.cpu().numpy()
        if not np.isfinite(costs).all():
            raise DivergedError("class probabilities or boxes are not finite")
        queries, instances = linear_sum_assignment(costs)
        device = logits.device
        return torch.as_tensor(queries, device=device), torch.as_tensor(instances, device=device)
