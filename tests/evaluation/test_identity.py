"""Identity errors, on strips whose tracks are easy to follow by eye."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqformer.errors import InputError
from seqformer.evaluation import IdentityErrors, count_identity_errors
from seqformer.formats.rle import decode_mask, encode_masks


def track(places: list[int | None], category: int = 1, **values: Any) -> dict[str, Any]:
    """A block of 4x10 pixels at a place of every frame of a 4x100 strip."""
    masks = np.zeros((len(places), 4, 100), dtype=bool)
    for mask, place in zip(masks, places, strict=True):
        if place is not None:
            mask[:, place : place + 10] = True
    return {"video_id": 1, "category_id": category, "segmentations": encode_masks(masks)} | values


def count(truths: list[dict], results: list[dict], **options: float) -> IdentityErrors:
    names = [f"{t}.jpg" for t in range(len(truths[0]["segmentations"]))]
    gt = {
        "videos": [{"id": 1, "height": 4, "width": 100, "file_names": names}],
        "categories": [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}],
        "annotations": [{"id": n, "iscrowd": 0} | truth for n, truth in enumerate(truths)],
    }
    return count_identity_errors(gt, [{"score": 0.9} | result for result in results], **options)


def test_one_result_all_the_time() -> None:
    truths = [track([0, 5, 10, 15]), track([50, 50, None, 50])]
    assert count(truths, truths) == IdentityErrors(errors=0, covered=2, instances=2)


def test_two_instances_that_exchange_their_results() -> None:
    truths = [track([0, 0, 0, 0]), track([50, 50, 50, 50])]
    results = [track([0, 0, 50, 50]), track([50, 50, 0, 0])]
    assert count(truths, results) == IdentityErrors(errors=2, covered=2, instances=2)


def test_every_change_counts_also_after_a_gap_and_back() -> None:
    truths = [track([0] * 6)]
    results = [track([0, None, None, None, 0, 0]), track([None, None, 0, 0, None, None])]
    assert count(truths, results).errors == 2


def test_a_gap_is_no_error() -> None:
    assert count([track([0] * 3)], [track([0, None, 0])]).errors == 0


def test_a_result_stays_while_it_covers() -> None:
    """The other one fits better from the second frame on, but the first still does."""
    results = [track([0, 2, 3]), track([None, 0, 0])]
    assert count([track([0, 0, 0])], results).errors == 0
    assert count([track([0, 0, 0])], [track([0, 4, 4]), results[1]]).errors == 1, "IoU 6/14"


def test_one_result_covers_one_instance_at_a_time() -> None:
    truths = [track([0, 0]), track([3, 3])]
    assert count(truths, [track([1, 1])]) == IdentityErrors(errors=0, covered=1, instances=2)


def test_two_instances_that_want_back_the_same_result() -> None:
    """It covered one, then the other, and now both: the better overlap keeps it, the other takes the rest."""
    truths = [track([0, None, 0]), track([60, 3, 3])]
    results = [track([0, 3, 1]), track([60, None, 3])]
    assert count(truths, results) == IdentityErrors(errors=1 + 1, covered=2, instances=2)


def test_the_best_sum_of_overlaps_decides() -> None:
    """Taken one by one, 2 would go to the second instance, and the first would be left without."""
    truths = [track([0, 0]), track([4, 4])]
    results = [track([3, 3]), track([7, 7])]
    assert count(truths, results) == IdentityErrors(errors=0, covered=2, instances=2)


@pytest.mark.parametrize(
    ("result", "options"),
    [
        (track([0, 0], category=2), {}),
        (track([0, 0], score=0.29), {}),
        (track([0, 0], score=0.6), {"score_threshold": 0.7}),
        (track([4, 4]), {}),
    ],
)
def test_what_does_not_cover(result: dict[str, Any], options: dict[str, float]) -> None:
    assert count([track([0, 0])], [result], **options) == IdentityErrors(0, covered=0, instances=1)


def test_crowds_do_not_count() -> None:
    assert count([track([0, 0], iscrowd=1)], [track([0, 0])]) == IdentityErrors(0, 0, 0)


def test_threshold_must_be_a_score() -> None:
    with pytest.raises(InputError, match="from 0 to 1, not 1.5"):
        count([track([0])], [], score_threshold=1.5)


def slow_count(gt: dict[str, Any], results: list[dict[str, Any]]) -> tuple[int, int]:
    """Errors and covered instances: every assignment is tried in every frame."""
    errors = covered = 0
    for truth_key in {(a["video_id"], a["category_id"]) for a in gt["annotations"]}:
        mine = [
            a
            for a in gt["annotations"]
            if (a["video_id"], a["category_id"]) == truth_key and not a["iscrowd"]
        ]
        found = [r for r in results if (r["video_id"], r["category_id"]) == truth_key and r["score"] >= 0.3]
        last: dict[int, int] = {}
        for frame in range(len(mine[0]["segmentations"]) if mine else 0):

            def iou(g: int, d: int, frame: int = frame, mine: Any = mine, found: Any = found) -> float:
                a, b = mine[g]["segmentations"][frame], found[d]["segmentations"][frame]
                if a is None or b is None:
                    return 0.0
                a, b = decode_mask(a) > 0, decode_mask(b) > 0
                return float((a & b).sum() / (a | b).sum())

            overlap = {
                (g, d): value
                for g in range(len(mine))
                for d in range(len(found))
                if (value := iou(g, d)) >= 0.5
            }
            now: dict[int, int] = {}
            for g, d in sorted(last.items(), key=lambda pair: -overlap.get(pair, 0)):
                if (g, d) in overlap and d not in now.values():
                    now[g] = d
            free_g = [g for g in range(len(mine)) if g not in now]
            free_d = [d for d in range(len(found)) if d not in now.values()] + [-1] * len(free_g)
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
    found = count_identity_errors(gt, results)
    assert (found.errors, found.covered) == slow_count(gt, results)
    assert found.instances == sum(not a["iscrowd"] for a in gt["annotations"])
