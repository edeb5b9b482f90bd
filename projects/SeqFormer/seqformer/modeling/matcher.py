"""Assignment of queries to ground-truth instances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_convert

from seqformer.errors import DivergedError

__all__ = ["HungarianMatcher", "Matches", "Predictions", "Targets", "giou_loss"]

_EPS = 1e-12  # area of boxes that are empty


def giou_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """Returns 1 - generalised IoU of normalised boxes (..., 4) cxcywh. Leading dimensions broadcast.

    Unlike torchvision's, it does not select boxes by value, so the CPU does not wait for a GPU.
    """
    first, second = box_convert(boxes, "cxcywh", "xyxy"), box_convert(targets, "cxcywh", "xyxy")
    (a0, a1), (b0, b1) = first.split(2, dim=-1), second.split(2, dim=-1)  # corners xy
    overlap = _area(F.relu(torch.minimum(a1, b1) - torch.maximum(a0, b0)))
    union = _area(a1 - a0) + _area(b1 - b0) - overlap
    hull = _area(torch.maximum(a1, b1) - torch.minimum(a0, b0))
    return 1 - (overlap / (union + _EPS) - (hull - union) / (hull + _EPS))


def _area(sides: Tensor) -> Tensor:
    return sides[..., 0] * sides[..., 1]


@dataclass
class Predictions:
    """Predictions of L decoder layers for B videos.

    Attributes:
        logits: (L, B, Q, K).
        boxes: (L, B, T, Q, 4), cxcywh, normalised to the unpadded frame.
    """

    logits: Tensor
    boxes: Tensor


@dataclass
class Targets:
    """Ground truth of B videos, whose G instances are in one sequence.

    Attributes:
        classes: (G,) int64.
        boxes: (G, T, 4), cxcywh normalised to the unpadded frame; zero where not visible.
        masks: (G, T, h, w) float, at stride 4 of the padded frame; zero where not visible.
        counts: number of instances of each video.
    """

    classes: Tensor
    boxes: Tensor
    masks: Tensor
    counts: list[int]

    def to(self, device: torch.device) -> Targets:
        """Returns the same on another device."""
        return Targets(self.classes.to(device), self.boxes.to(device), self.masks.to(device), self.counts)

    @classmethod
    def cat(cls, parts: list[Targets]) -> Targets:
        """Joins the videos of several parts with equal frame counts and mask sizes."""
        return cls(
            torch.cat([part.classes for part in parts]),
            torch.cat([part.boxes for part in parts]),
            torch.cat([part.masks for part in parts]),
            [count for part in parts for count in part.counts],
        )


@dataclass
class Matches:
    """M pairs of a query and an instance, ordered by video, then by layer.

    Attributes:
        layers, videos, queries, instances: (M,) int64. Instances are indices into :class:`Targets`.
        counts: number of pairs of each video.
    """

    layers: Tensor
    videos: Tensor
    queries: Tensor
    instances: Tensor
    counts: list[int]


class HungarianMatcher:
    """Matches by class, box and generalised-IoU costs over a whole video. Source: SeqFormer, section 3.4.

    Args:
        class_cost, box_cost, giou_cost: weights of the costs.
        alpha, gamma: parameters of the focal loss.
        groups: number of equal groups of queries, each matched to all instances on its own.
    """

    def __init__(
        self,
        class_cost: float = 2.0,
        box_cost: float = 5.0,
        giou_cost: float = 2.0,
        alpha: float = 0.25,
        gamma: float = 2.0,
        groups: int = 1,
    ):
        self.class_cost = class_cost
        self.box_cost = box_cost
        self.giou_cost = giou_cost
        self.alpha = alpha
        self.gamma = gamma
        self.groups = groups

    @torch.no_grad()
    def __call__(self, predictions: Predictions, targets: Targets) -> Matches:
        """Matches the queries of all layers and videos. The costs are copied from the device once.

        Raises:
            DivergedError: if a cost is not finite.
        """
        costs = self.costs(predictions, targets).cpu()
        pairs, counts = assign(costs, targets.counts, self.groups)
        layers, videos, queries, instances = pairs.to(predictions.logits.device)
        return Matches(layers, videos, queries, instances, counts)

    def costs(self, predictions: Predictions, targets: Targets) -> Tensor:
        """Returns the cost of each instance and query of the instance's video, (L, G, Q)."""
        owners = [video for video, count in enumerate(targets.counts) for _ in range(count)]
        video = torch.tensor(owners, dtype=torch.int64, device=predictions.logits.device)
        probability = predictions.logits.float().sigmoid()
        positive = self.alpha * (1 - probability) ** self.gamma * -(probability + 1e-8).log()
        negative = (1 - self.alpha) * probability**self.gamma * -(1 - probability + 1e-8).log()
        cost_class = (positive - negative)[:, video, :, targets.classes].transpose(0, 1)

        boxes = predictions.boxes.float()[:, video]  # L, G, T, Q, 4
        target_boxes = targets.boxes.unsqueeze(2)
        cost_box = (boxes - target_boxes).square().sum((2, 4)).sqrt()
        cost_giou = giou_loss(boxes, target_boxes).mean(2) - 1
        return self.class_cost * cost_class + self.box_cost * cost_box + self.giou_cost * cost_giou


def assign(costs: Tensor, counts: list[int], groups: int) -> tuple[Tensor, list[int]]:
    """Solves the assignment problem of each video, layer and group.

    Args:
        costs: (L, G, Q), on the CPU.
        counts: number of instances of each video, G in total.
        groups: number of equal groups of the Q queries.

    Returns:
        layers, videos, queries and instances of the M pairs, (4, M) int64, and the pairs of each video.

    Raises:
        DivergedError: if a cost is not finite.
    """
    table = costs.numpy()
    if not np.isfinite(table).all():
        raise DivergedError("class probabilities or boxes are not finite")
    size = table.shape[2] // groups
    parts: list[np.ndarray[Any, np.dtype[np.int64]]] = [np.empty((4, 0), dtype=np.int64)]
    pairs = []
    first_instance = 0
    for video, count in enumerate(counts):
        of_video = table[:, first_instance : first_instance + count]
        found = 0
        for layer, group in np.ndindex(len(table), groups):
            first_query = group * size
            queries, instances = linear_sum_assignment(of_video[layer, :, first_query : first_query + size].T)
            found += len(queries)
            where = np.full((2, len(queries)), ((layer,), (video,)))
            parts.append(np.concatenate((where, [queries + first_query, instances + first_instance])))
        pairs.append(found)
        first_instance += count
    return torch.from_numpy(np.concatenate(parts, axis=1)), pairs
