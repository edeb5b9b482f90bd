from __future__ import annotations

from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqformer.modeling.matcher import HungarianMatcher, VideoTargets, giou_loss


def make_targets(instances: int, frames: int = 2) -> VideoTargets:
    boxes = torch.rand(frames, instances, 4) * 0.3 + 0.2
    return VideoTargets(torch.randint(0, 3, (instances,)), boxes, torch.zeros(instances, frames, 6, 8))


def giou(first: list[float], second: list[float]) -> float:
    """Returns the generalised IoU of two boxes cxcywh, computed from their corners."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = (
        (x - w / 2, y - h / 2, x + w / 2, y + h / 2) for x, y, w, h in (first, second)
    )
    inside = max(min(ax1, bx1) - max(ax0, bx0), 0) * max(min(ay1, by1) - max(ay0, by0), 0)
    union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - inside
    hull = (max(ax1, bx1) - min(ax0, bx0)) * (max(ay1, by1) - min(ay0, by0))
    return inside / union - (hull - union) / hull


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), instances=st.integers(1, 3), frames=st.integers(1, 3))
def test_matching_is_the_cheapest_of_all_assignments(
    device: torch.device, seed: int, instances: int, frames: int
) -> None:
    torch.manual_seed(seed)
    targets = make_targets(instances, frames)
    logits, boxes = torch.randn(5, 3), torch.rand(frames, 5, 4) * 0.4 + 0.1

    def cost(query: int, instance: int) -> float:
        p = logits[query, targets.classes[instance]].sigmoid()
        focal = 0.25 * (1 - p) ** 2 * -p.log() - 0.75 * p**2 * -(1 - p).log()
        distance = (boxes[:, query] - targets.boxes[:, instance]).flatten().norm()
        pairs = zip(boxes[:, query].tolist(), targets.boxes[:, instance].tolist(), strict=True)
        overlap = sum(giou(a, b) for a, b in pairs) / frames
        return (2 * focal + 5 * distance).item() - 2 * overlap

    best = min(permutations(range(5), instances), key=lambda qs: sum(cost(q, i) for i, q in enumerate(qs)))
    on_device = VideoTargets(*(t.to(device) for t in (targets.classes, targets.boxes, targets.masks)))
    queries, matched = HungarianMatcher()(logits.to(device), boxes.to(device), on_device)
    assert queries.device.type == matched.device.type == device.type
    assert dict(zip(matched.tolist(), queries.tolist(), strict=True)) == dict(enumerate(best))


@settings(max_examples=50)
@given(
    boxes=st.lists(st.tuples(*[st.floats(0.2, 0.8)] * 2, *[st.floats(0.05, 0.5)] * 2), min_size=2, max_size=2)
)
def test_giou_loss_agrees_with_the_definition(boxes: list[tuple[float, ...]]) -> None:
    first, second = (torch.tensor(box, dtype=torch.float64) for box in boxes)
    assert giou_loss(first, second).item() == pytest.approx(1 - giou(*map(list, boxes)), abs=1e-6)


def test_giou_loss_of_known_boxes() -> None:
    box = torch.tensor([0.5, 0.5, 0.2, 0.2])
    apart = torch.tensor([0.8, 0.5, 0.2, 0.2])  # apart by 0.1: hull 0.5 x 0.2, union 0.08
    losses = giou_loss(box.expand(3, 4), torch.stack((box, apart, torch.zeros(4))))
    torch.testing.assert_close(losses[:2], torch.tensor([0.0, 1 + 0.2]))
    assert losses[2].isfinite(), "the box is zero where an instance is not visible"


def test_frames_without_the_instance_count() -> None:
    """Its box is zero in these frames, so a query whose boxes vanish is a better match."""
    targets = VideoTargets(torch.tensor([0]), torch.tensor([[[0.5, 0.5, 0.2, 0.2]], [[0.0] * 4]]), None)
    staying = torch.tensor([[0.5, 0.5, 0.2, 0.2]] * 2)
    leaving = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.01, 0.01, 0.01, 0.01]])
    boxes = torch.stack((staying, leaving), dim=1)
    queries, _ = HungarianMatcher()(torch.zeros(2, 3), boxes, targets)
    assert queries.tolist() == [1]


@pytest.mark.parametrize(("instances", "pairs"), [(0, 0), (7, 4)])
def test_no_or_too_many_instances(instances: int, pairs: int) -> None:
    """Every query is matched to at most one instance."""
    queries, matched = HungarianMatcher()(torch.randn(4, 3), torch.rand(2, 4, 4), make_targets(instances))
    assert len(queries) == len(matched) == pairs == len(set(queries.tolist())) == len(set(matched.tolist()))
