"""ID switches, on strips whose tracklets are easy to check by eye."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqformer.errors import InputError
from seqformer.evaluation import IDSwitches, count_id_switches
from seqformer.formats.rle import decode_mask, encode_masks


def tracklet(places: list[int | None], category: int = 1, **values: Any) -> dict[str, Any]:
    """A block of 4x10 pixels in a 4x100 strip, at a given place in each frame."""
    masks = np.zeros((len(places), 4, 100), dtype=bool)
    for mask, place in zip(masks, places, strict=True):
        if place is not None:
            mask[:, place : place + 10] = True
    return {"video_id": 1, "category_id": category, "segmentations": encode_masks(masks)} | values


def count(truths: list[dict], results: list[dict], **options: float) -> IDSwitches:
    names = [f"{t}.jpg" for t in range(len(truths[0]["segmentations"]))]
    gt = {
        "videos": [{"id": 1, "height": 4, "width": 100, "file_names": names}],
        "categories": [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}],
        "annotations": [{"id": n, "iscrowd": 0} | truth for n, truth in enumerate(truths)],
    }
    return count_id_switches(gt, [{"score": 0.9} | result for result in results], **options)


def test_perfect_results() -> None:
    truths = [tracklet([0, 5, 10, 15]), tracklet([50, 50, None, 50])]
    assert count(truths, truths) == IDSwitches(switches=0, covered=2, instances=2)


def test_swapped_results() -> None:
    truths = [tracklet([0, 0, 0, 0]), tracklet([50, 50, 50, 50])]
    results = [tracklet([0, 0, 50, 50]), tracklet([50, 50, 0, 0])]
    assert count(truths, results) == IDSwitches(switches=2, covered=2, instances=2)


def test_every_change_counts_even_after_a_gap() -> None:
    truths = [tracklet([0] * 6)]
    results = [tracklet([0, None, None, None, 0, 0]), tracklet([None, None, 0, 0, None, None])]
    assert count(truths, results).switches == 2


def test_a_gap_is_not_a_switch() -> None:
    assert count([tracklet([0] * 3)], [tracklet([0, None, 0])]).switches == 0


def test_a_pair_is_kept_while_it_covers() -> None:
    """The other result has a higher IoU from the second frame on, but the first still covers."""
    results = [tracklet([0, 2, 3]), tracklet([None, 0, 0])]
    assert count([tracklet([0, 0, 0])], results).switches == 0
    assert count([tracklet([0, 0, 0])], [tracklet([0, 4, 4]), results[1]]).switches == 1, "IoU 6/14"


def test_one_result_covers_one_instance_at_a_time() -> None:
    truths = [tracklet([0, 0]), tracklet([3, 3])]
    assert count(truths, [tracklet([1, 1])]) == IDSwitches(switches=0, covered=1, instances=2)


def test_two_instances_with_the_same_last_result() -> None:
    """It covered one, then the other, and now both: the higher IoU keeps it, the other gets the rest."""
    truths = [tracklet([0, None, 0]), tracklet([60, 3, 3])]
    results = [tracklet([0, 3, 1]), tracklet([60, None, 3])]
    assert count(truths, results) == IDSwitches(switches=1 + 1, covered=2, instances=2)


def test_assignment_has_the_highest_sum_of_iou() -> None:
    """A greedy assignment would leave the first instance without a result."""
    truths = [tracklet([0, 0]), tracklet([4, 4])]
    results = [tracklet([3, 3]), tracklet([7, 7])]
    assert count(truths, results) == IDSwitches(switches=0, covered=2, instances=2)


@pytest.mark.parametrize(
    ("result", "options"),
    [
        (tracklet([0, 0], category=2), {}),
        (tracklet([0, 0], score=0.29), {}),
        (tracklet([0, 0], score=0.6), {"score_threshold": 0.7}),
        (tracklet([4, 4]), {}),
    ],
)
def test_results_that_do_not_cover(result: dict[str, Any], options: dict[str, float]) -> None:
    assert count([tracklet([0, 0])], [result], **options) == IDSwitches(0, covered=0, instances=1)


def test_crowds_do_not_count() -> None:
    assert count([tracklet([0, 0], iscrowd=1)], [tracklet([0, 0])]) == IDSwitches(0, 0, 0)


def test_threshold_must_be_a_score() -> None:
    with pytest.raises(InputError, match="from 0 to 1, not 1.5"):
        count([tracklet([0])], [], score_threshold=1.5)


def slow_count(gt: dict[str, Any], results: list[dict[str, Any]]) -> tuple[int, int]:
    """ID switches and covered instances, by trying every assignment in every frame."""
    errors = covered = 0
    for truth_key in {(a["video_id"], a["category_id"]) for a in gt["annotations"]}:
        mine = [
            a
            for a in gt["annotations"]
            if (a["video_id"], a["category_id"]) == truth_key and not a["iscrowd"]
        ]
        preds = [r for r in results if (r["video_id"], r["category_id"]) == truth_key and r["score"] >= 0.3]
        last: dict[int, int] = {}
        for frame in range(len(mine[0]["segmentations"]) if mine else 0):

            def iou(g: int, d: int, frame: int = frame, mine: Any = mine, preds: Any = preds) -> float:
                a, b = mine[g]["segmentations"][frame], preds[d]["segmentations"][frame]
                if a is None or b is None:
                    return 0.0
                a, b = decode_mask(a) > 0, decode_mask(b) > 0
                return float((a & b).sum() / (a | b).sum())

            overlap = {
                (g, d): value
                for g in range(len(mine))
                for d in range(len(preds))
                if (value := iou(g, d)) >= 0.5
            }
            now: dict[int, int] = {}
            for g, d in sorted(last.items(), key=lambda pair: -overlap.get(pair, 0)):
                if (g, d) in overlap and d not in now.values():
                    now[g] = d
            free_g = [g for g in range(len(mine)) if g not in now]
            free_d = [d for d in range(len(preds)) if d not in now.values()] + [-1] * len(free_g)
            best = max(
                permutations(free_d, len(free_g)),
                key=lambda ds: sum(overlap.get(pair, 0) for pair in zip(free_g, ds, strict=True)),
            )
            for g, d in zip(free_g, best, strict=True):
                if (g, d) in overlap:
                    errors += g in last and last[g] != d
                    now[g] = d
            last |= now
        covered += len(last)
    return errors, covered


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1))
def test_slow_version_agrees(random_case: Callable, seed: int) -> None:
    gt, results = random_case(seed)
    counts = count_id_switches(gt, results)
    assert (counts.switches, counts.covered) == slow_count(gt, results)
    assert counts.instances == sum(not a["iscrowd"] for a in gt["annotations"])
