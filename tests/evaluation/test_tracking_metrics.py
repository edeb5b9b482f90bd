"""Tracking metrics, on strips whose tracklets are easy to check by eye."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqformer.errors import InputError
from seqformer.evaluation import Evaluation, IDSwitches, count_id_switches, evaluate
from seqformer.formats.rle import decode_mask, encode_masks


def tracklet(places: list[int | None], category: int = 1, **values: Any) -> dict[str, Any]:
    """A block of 4x10 pixels in a 4x100 strip, at a given place in each frame."""
    masks = np.zeros((len(places), 4, 100), dtype=bool)
    for mask, place in zip(masks, places, strict=True):
        if place is not None:
            mask[:, place : place + 10] = True
    return {"video_id": 1, "category_id": category, "segmentations": encode_masks(masks)} | values


Case = tuple[dict[str, Any], list[dict[str, Any]]]


def case(truths: list[dict], results: list[dict], frames: int = 0) -> Case:
    names = [f"{t}.jpg" for t in range(frames or len(truths[0]["segmentations"]))]
    gt = {
        "videos": [{"id": 1, "height": 4, "width": 100, "file_names": names}],
        "categories": [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}],
        "annotations": [{"id": n, "iscrowd": 0} | truth for n, truth in enumerate(truths)],
    }
    return gt, [{"score": 0.9} | result for result in results]


def count(truths: list[dict], results: list[dict], **options: float) -> IDSwitches:
    return count_id_switches(*case(truths, results), **options)


def measure(truths: list[dict], results: list[dict], frames: int = 0) -> Evaluation:
    return evaluate(*case(truths, results, frames), per_video=True)


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


def test_a_pair_is_not_kept_over_a_frame_without_it() -> None:
    """The first result covers again, but was absent in the frame before, where another one was matched."""
    results = [tracklet([0, None, 3]), tracklet([50, 0, 0])]
    assert count([tracklet([0, 0, 0])], results).switches == 1
    results = [tracklet([0, None, 0]), tracklet([50, 0, 3])]
    assert count([tracklet([0, 0, 0])], results).switches == 1, "the pair of the frame before goes first"


def test_assignment_has_the_highest_sum_of_iou() -> None:
    """A greedy assignment would leave the first instance without a result."""
    truths = [tracklet([0, 0]), tracklet([4, 4])]
    results = [tracklet([3, 3]), tracklet([7, 7])]
    assert count(truths, results) == IDSwitches(switches=0, covered=2, instances=2)


@pytest.mark.parametrize(
    ("result", "options"),
    [
        (tracklet([0, 0], category=2), {}),
        (tracklet([0, 0], score=0.69), {"score_threshold": 0.7}),
        (tracklet([4, 4]), {}),
    ],
)
def test_results_that_do_not_cover(result: dict[str, Any], options: dict[str, float]) -> None:
    assert count([tracklet([0, 0])], [result], **options) == IDSwitches(0, covered=0, instances=1)


def test_low_scores_count_unless_there_is_a_threshold() -> None:
    truths, results = [tracklet([0, 0])], [tracklet([0, 0], score=0.001)]
    assert count(truths, results) == IDSwitches(0, covered=1, instances=1)
    assert count(truths, results, score_threshold=0.001).covered == 1, "equal to the threshold"


def test_crowds_count_as_in_trackeval() -> None:
    assert count([tracklet([0, 0], iscrowd=1)], [tracklet([0, 0])]) == IDSwitches(0, 1, 1)


def test_instances_without_a_mask_do_not_count() -> None:
    assert count([tracklet([None, None])], [tracklet([0, 0])]) == IDSwitches(0, 0, 0)


def test_perfect_results_have_all_metrics_at_100() -> None:
    truths = [tracklet([0, 5, None, 15]), tracklet([50, 50, 40, 50], category=2)]
    figures = measure(truths, truths)
    expected = dict.fromkeys(["HOTA", "DetA", "AssA", "MOTA", "IDF1", "IDP", "IDR"], 100.0) | {"IDSW": 0}
    assert figures.detection_averaged == pytest.approx(expected)
    assert figures.class_averaged | expected == pytest.approx(figures.class_averaged, nan_ok=True)
    assert figures.videos[1] | expected == pytest.approx(figures.videos[1], nan_ok=True)
    assert figures.unused_categories == 0


def test_an_id_that_changes_halfway() -> None:
    """All is detected, so DetA is 100. Each half agrees with the whole by 1/2: AssA 50, HOTA sqrt(1/2)."""
    figures = measure([tracklet([0] * 4)], [tracklet([0, 0, None, None]), tracklet([None, None, 0, 0])])
    expected = {"DetA": 100, "AssA": 50, "HOTA": 100 * 0.5**0.5, "IDSW": 1, "MOTA": 75}
    expected |= dict.fromkeys(["IDF1", "IDP", "IDR"], 50)
    assert figures.categories[1] | expected == pytest.approx(figures.categories[1], nan_ok=True)


def test_averages_of_categories() -> None:
    """Category 1 has three detections, all matched, category 2 has one and two results for it."""
    truths = [tracklet([0, 0, 0]), tracklet([None, 50, None], category=2)]
    results = [truths[0], truths[1], truths[1] | {"score": 0.1}]
    figures = measure(truths, results)
    assert figures.categories[1]["DetA"] == pytest.approx(100)
    assert figures.categories[2]["DetA"] == pytest.approx(50)
    assert figures.class_averaged["DetA"] == pytest.approx(75)
    assert figures.detection_averaged["DetA"] == pytest.approx(100 * 4 / 5)
    assert figures.detection_averaged["MOTA"] == pytest.approx(100 * (4 - 1) / 4)


def test_a_category_without_ground_truth_and_results_is_0_and_counts() -> None:
    figures = measure([tracklet([0, 0])], [tracklet([0, 0])])
    assert (figures.categories[2]["HOTA"], figures.class_averaged["HOTA"]) == pytest.approx((0, 50))
    assert figures.detection_averaged["HOTA"] == pytest.approx(100)
    assert figures.unused_categories == 1


@pytest.mark.parametrize(
    ("truths", "results", "mota"), [([tracklet([0, 0])], [], 0), ([], [tracklet([0, 0])], -200), ([], [], 0)]
)
def test_nothing_to_match(truths: list[dict], results: list[dict], mota: float) -> None:
    """With TrackEval's denominator of at least one instance, two wrong detections are a MOTA of -200."""
    figures = measure(truths, results, frames=2).detection_averaged
    assert figures.pop("MOTA") == pytest.approx(mota)
    assert set(figures.values()) == {0.0}


def test_metrics_must_be_known() -> None:
    with pytest.raises(InputError, match="there is no metric 'HOAT'; choose from AP, HOTA, CLEAR, Identity"):
        evaluate(*case([tracklet([0])], []), families=["HOTA", "HOAT"])


def test_threshold_must_be_a_score() -> None:
    with pytest.raises(InputError, match="from 0 to 1, not 1.5"):
        count([tracklet([0])], [], score_threshold=1.5)


def slow_count(gt: dict[str, Any], results: list[dict[str, Any]]) -> tuple[int, int]:
    """ID switches and covered instances, by trying every assignment in every frame."""
    switches = covered = 0
    for key in {(a["video_id"], a["category_id"]) for a in gt["annotations"]}:
        mine, preds = (
            [entry for entry in entries if (entry["video_id"], entry["category_id"]) == key]
            for entries in (gt["annotations"], results)
        )
        last: dict[int, int] = {}
        before: dict[int, int] = {}
        for frame in range(len(mine[0]["segmentations"])):

            def mask(entry: dict[str, Any], frame: int = frame) -> np.ndarray | None:
                rle = entry["segmentations"][frame]
                return None if rle is None else decode_mask(rle) > 0

            visible, detected = (
                {n: m for n, e in enumerate(es) if (m := mask(e)) is not None} for es in (mine, preds)
            )
            if not visible or not detected:
                continue
            value = {}
            for g, a in visible.items():
                for d, b in detected.items():
                    iou = float((a & b).sum() / (a | b).sum())
                    if iou >= 0.5:
                        value[g, d] = iou + 1000 * (before.get(g) == d)
            choices = [*detected, *[-1] * len(visible)]
            best = max(
                permutations(choices, len(visible)),
                key=lambda ds: sum(value.get(pair, 0) for pair in zip(visible, ds, strict=True)),
            )
            before = {g: d for g, d in zip(visible, best, strict=True) if (g, d) in value}
            switches += sum(g in last and last[g] != d for g, d in before.items())
            last |= before
        covered += len(last)
    return switches, covered


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1))
def test_slow_version_agrees(random_case: Callable, seed: int) -> None:
    gt, results = random_case(seed)
    counts = count_id_switches(gt, results)
    assert (counts.switches, counts.covered) == slow_count(gt, results)
    assert counts.instances == sum(any(a["segmentations"]) for a in gt["annotations"])
