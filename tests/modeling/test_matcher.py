from __future__ import annotations

from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqformer.errors import DivergedError
from seqformer.modeling.matcher import HungarianMatcher, Predictions, Targets, giou_loss


def make_targets(device: torch.device, *counts: int, frames: int = 2) -> Targets:
    total = sum(counts)
    boxes = torch.rand(total, frames, 4) * 0.3 + 0.2
    masks = torch.zeros(total, frames, 6, 8)
    return Targets(torch.randint(0, 3, (total,)), boxes, masks, list(counts)).to(device)


def match(
    logits: torch.Tensor, boxes: torch.Tensor, targets: Targets, groups: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the matched queries and instances of one video and layer: logits (Q, K), boxes (T, Q, 4)."""
    predictions = Predictions(logits[None, None], boxes[None, None])
    matches = HungarianMatcher(groups=groups)(predictions, targets)
    return matches.queries, matches.instances


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
    targets = make_targets(device, instances, frames=frames)
    logits, boxes = torch.randn(5, 3).to(device), (torch.rand(frames, 5, 4) * 0.4 + 0.1).to(device)

    def cost(query: int, instance: int) -> float:
        p = logits[query, targets.classes[instance]].sigmoid()
        focal = 0.25 * (1 - p) ** 2 * -p.log() - 0.75 * p**2 * -(1 - p).log()
        distance = (boxes[:, query] - targets.boxes[instance]).flatten().norm()
        pairs = zip(boxes[:, query].tolist(), targets.boxes[instance].tolist(), strict=True)
        overlap = sum(giou(a, b) for a, b in pairs) / frames
        return (2 * focal + 5 * distance).item() - 2 * overlap

    best = min(permutations(range(5), instances), key=lambda qs: sum(cost(q, i) for i, q in enumerate(qs)))
    queries, matched = match(logits, boxes, targets)
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
    targets = Targets(torch.tensor([0]), torch.tensor([[[0.5, 0.5, 0.2, 0.2], [0.0] * 4]]), None, [1])
    staying = torch.tensor([[0.5, 0.5, 0.2, 0.2]] * 2)
    leaving = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.01, 0.01, 0.01, 0.01]])
    boxes = torch.stack((staying, leaving), dim=1)
    queries, _ = match(torch.zeros(2, 3), boxes, targets)
    assert queries.tolist() == [1]


@pytest.mark.parametrize(("instances", "pairs"), [(0, 0), (7, 4)])
def test_no_or_too_many_instances(device: torch.device, instances: int, pairs: int) -> None:
    """Every query is matched to at most one instance."""
    queries, matched = match(
        torch.randn(4, 3).to(device), torch.rand(2, 4, 4).to(device), make_targets(device, instances)
    )
    assert len(queries) == len(matched) == pairs == len(set(queries.tolist())) == len(set(matched.tolist()))


def test_every_group_of_queries_is_matched_with_all_instances(device: torch.device) -> None:
    logits, boxes = torch.randn(10, 3).to(device), (torch.rand(2, 10, 4) * 0.4 + 0.1).to(device)
    targets = make_targets(device, 3)
    queries, instances = match(logits, boxes, targets, groups=2)
    for group, half in enumerate((slice(5), slice(5, 10))):
        expected = match(logits[half], boxes[:, half], targets)
        part = slice(3 * group, 3 * group + 3)
        assert torch.equal(queries[part], expected[0] + 5 * group)
        assert torch.equal(instances[part], expected[1])


def test_pairs_are_ordered_by_video_and_layer(device: torch.device) -> None:
    logits, boxes = torch.randn(2, 3, 6, 3), torch.rand(2, 3, 2, 6, 4) * 0.4 + 0.1
    predictions = Predictions(logits.to(device), boxes.to(device))
    matches = HungarianMatcher(groups=2)(predictions, make_targets(device, 2, 0, 4))
    assert matches.counts == [8, 0, 12]
    assert matches.videos.tolist() == [0] * 8 + [2] * 12
    assert matches.layers.tolist() == [0] * 4 + [1] * 4 + [0] * 6 + [1] * 6
    assert set(matches.instances[:8].tolist()) == {0, 1}
    assert set(matches.instances[8:].tolist()) <= {2, 3, 4, 5}


def test_costs_that_are_not_finite_are_refused(device: torch.device) -> None:
    logits = torch.full((1, 1, 4, 3), float("nan"), device=device)
    predictions = Predictions(logits, torch.rand(1, 1, 2, 4, 4).to(device))
    with pytest.raises(DivergedError, match="not finite"):
        HungarianMatcher()(predictions, make_targets(device, 1))
