"""AP compared with the official code's values and with a slow reference of the protocol."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_api

from seqformer.errors import InputError
from seqformer.evaluation import evaluate_ytvis
from seqformer.evaluation.ytvis import METRICS
from seqformer.formats.rle import decode_mask, encode_masks, rle_counts

AREAS = {"": (0, 1e10), "s": (0, 128**2), "m": (128**2, 256**2), "l": (256**2, 1e10)}


def slow_evaluate(gt: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, Any]:
    """The protocol in plain loops over pixels, thresholds and pairs."""
    sizes = {video["id"]: (video["height"], video["width"]) for video in gt["videos"]}
    thresholds = np.linspace(0.5, 0.95, 10)

    volumes: dict[int, np.ndarray] = {}
    for entry in [*gt["annotations"], *results]:
        empty = np.zeros(sizes[entry["video_id"]], dtype=bool)
        frames = [empty if s is None else decode_mask(s) > 0 for s in entry["segmentations"]]
        volumes[id(entry)] = np.stack(frames)

    def area(mask: np.ndarray) -> float:
        pixels = [frame.sum() for frame in mask if frame.any()]
        return float(np.mean(pixels)) if pixels else 0.0

    def match(video: int, category: int, low: float, high: float, threshold: float, limit: int) -> tuple:
        """Returns (score, right, ignored) of every prediction of a video, and the number of instances."""
        mine = (video, category)
        truths = [a for a in gt["annotations"] if (a["video_id"], a["category_id"]) == mine]
        found = [r for r in results if (r["video_id"], r["category_id"]) == mine]
        found = sorted(found, key=lambda r: -r["score"])[:100]
        masks = [volumes[id(a)] for a in truths]
        ignored = [
            bool(a["iscrowd"]) or not low <= area(m) <= high for a, m in zip(truths, masks, strict=True)
        ]
        taken = set()
        verdicts = []
        for result in found:
            mask = volumes[id(result)]
            best = None
            for wanted_ignored in (False, True):
                for g in range(len(truths)):
                    if ignored[g] != wanted_ignored or (g in taken and not truths[g]["iscrowd"]):
                        continue
                    union = (mask | masks[g]).sum()
                    overlap = (mask & masks[g]).sum() / union if union else 0.0
                    if overlap >= threshold and (best is None or overlap >= best[0]):
                        best = (overlap, g)
                if best is not None:
                    break
            if best is None:
                verdicts.append((result["score"], False, not low <= area(mask) <= high))
            else:
                taken.add(best[1])
                verdicts.append((result["score"], True, ignored[best[1]]))
        return verdicts[:limit], ignored.count(False)

    def curve(category: int, letter: str, threshold: float, limit: int) -> tuple[float, float] | None:
        """Average precision and recall."""
        pairs = [match(v, category, *AREAS[letter], threshold, limit) for v in sorted(sizes)]
        total = sum(count for _, count in pairs)
        if total == 0:
            return None
        verdicts = sorted((v for verdicts, _ in pairs for v in verdicts), key=lambda v: -v[0])
        right = wrong = 0
        points = []
        for _, matched, ignored in verdicts:
            right += matched and not ignored
            wrong += not matched and not ignored
            points.append((right / total, right / (right + wrong) if right + wrong else 0.0))
        precision = [
            max((p for r, p in points if r >= recall), default=0.0) for recall in np.linspace(0, 1, 101)
        ]
        return float(np.mean(precision)), right / total

    def mean(index: int, letter: str, levels: np.ndarray, limit: int, only: int | None = None) -> float:
        ids = [c["id"] for c in gt["categories"]] if only is None else [only]
        values = [curve(c, letter, t, limit) for c in ids for t in levels]
        values = [value[index] for value in values if value is not None]
        return 100 * float(np.mean(values)) if values else math.nan

    figures = {
        "AP": mean(0, "", thresholds, 100),
        "AP50": mean(0, "", thresholds[:1], 100),
        "AP75": mean(0, "", thresholds[5:6], 100),
        **{f"AP{letter}": mean(0, letter, thresholds, 100) for letter in "sml"},
        **{f"AR{limit}": mean(1, "", thresholds, limit) for limit in (1, 10, 100)},
        **{f"AR{letter}": mean(1, letter, thresholds, 100) for letter in "sml"},
    }
    figures["per_category"] = {
        c["name"]: mean(0, "", thresholds, 100, only=c["id"]) for c in gt["categories"]
    }
    return figures


def tracklet(video: int, category: int, pixels: int, frames: int = 2, **values: Any) -> dict[str, Any]:
    """A block of that many pixels, 20 high, from the left edge of a 100x1000 frame."""
    masks = np.zeros((frames, 100, 1000), dtype=bool)
    masks[:, :20, : pixels // 20] = True
    return {"video_id": video, "category_id": category, "segmentations": encode_masks(masks)} | values


def ground_truth(*annotations: dict[str, Any], frames: int = 2) -> dict[str, Any]:
    names = [f"{t}.jpg" for t in range(frames)]
    return {
        "videos": [{"id": 1, "height": 100, "width": 1000, "file_names": names}],
        "categories": [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}],
        "annotations": [{"id": n + 1, "iscrowd": 0} | a for n, a in enumerate(annotations)],
    }


def test_official_figures(reference_dir: Path) -> None:
    gt, results, expected = (
        json.loads((reference_dir / f"eval_{name}.json").read_text())
        for name in ("gt", "results", "expected")
    )
    untouched = copy.deepcopy((gt, results))
    figures = evaluate_ytvis(gt, results)
    assert (gt, results) == untouched
    assert list(METRICS) == expected["order"]
    for name, value in zip(expected["order"], expected["stats"], strict=True):
        if value < 0:
            assert math.isnan(figures[name])
        else:
            assert figures[name] / 100 == pytest.approx(value, abs=1e-9)
    by_category = [value / 100 for value in figures["per_category"].values()]
    assert by_category == pytest.approx(expected["AP_per_category"], abs=1e-9)


@settings(max_examples=12)
@given(seed=st.integers(0, 2**32 - 1), forms=st.booleans())
def test_slow_version_agrees(random_case: Callable, seed: int, forms: bool) -> None:
    gt, results = random_case(seed)
    slow_gt, slow_results = copy.deepcopy((gt, results))
    if forms:
        for number, entry in enumerate([*gt["annotations"], *results]):
            entry["segmentations"] = [in_form(mask, number) for mask in entry["segmentations"]]
    figures, slow = evaluate_ytvis(gt, results), slow_evaluate(slow_gt, slow_results)
    assert figures.pop("per_category") == pytest.approx(slow.pop("per_category"), abs=1e-9, nan_ok=True)
    assert figures == pytest.approx(slow, abs=1e-9, nan_ok=True)


def in_form(mask: dict[str, Any] | None, number: int) -> Any:
    """The same mask as compressed or uncompressed RLE, or as a polygon, because these masks are boxes."""
    if mask is None:
        return [None, []][number % 2]
    if number % 3 == 0:
        return mask
    if number % 3 == 1:
        return mask | {"counts": rle_counts(mask["counts"]).tolist()}
    rows, columns = (np.flatnonzero(decode_mask(mask).any(axis=axis)) for axis in (1, 0))
    top, bottom, left, right = rows[0] - 0.5, rows[-1] + 0.5, columns[0] - 0.5, columns[-1] + 0.5
    polygon = [[float(v) for v in (left, top, right, top, right, bottom, left, bottom)]]
    drawn = mask_api.merge(mask_api.frPyObjects(polygon, *mask["size"]))
    return polygon if drawn["counts"].decode() == mask["counts"] else mask


def test_perfect_results() -> None:
    gt = ground_truth(tracklet(1, 1, 500), tracklet(1, 2, 20000))
    results = [tracklet(1, 1, 500, score=0.3), tracklet(1, 2, 20000, score=0.2)]
    figures = evaluate_ytvis(gt, results)
    assert [figures[name] for name in ("AP", "AR1", "APs", "APm")] == pytest.approx([100] * 4)
    assert math.isnan(figures["APl"])
    assert figures["per_category"] == pytest.approx({"one": 100, "two": 100})


def test_no_results_and_no_instances() -> None:
    figures = evaluate_ytvis(ground_truth(tracklet(1, 1, 500)), [])
    assert figures["AP"] == figures["AR100"] == 0
    assert figures["per_category"]["one"] == 0 and math.isnan(figures["per_category"]["two"])
    nothing = evaluate_ytvis(ground_truth(), [tracklet(1, 1, 500, score=0.5)])
    assert all(math.isnan(nothing[name]) for name in METRICS)


def test_overlap_is_over_space_and_time() -> None:
    """Correct in 6 of 8 frames and absent in 2: IoU 0.75, which reaches six of ten thresholds."""
    result = tracklet(1, 1, 500, frames=8, score=1.0)
    result["segmentations"][:2] = [None, None]
    figures = evaluate_ytvis(ground_truth(tracklet(1, 1, 500, frames=8), frames=8), [result])
    assert (figures["AP"], figures["AP75"]) == pytest.approx((60, 100))


def test_areas_in_the_file_determine_the_range() -> None:
    gt = ground_truth(tracklet(1, 1, 500) | {"areas": [None, 300.0**2]})
    figures = evaluate_ytvis(gt, [tracklet(1, 1, 500, score=1.0)])
    assert figures["APl"] == pytest.approx(100) and math.isnan(figures["APs"])


@pytest.mark.parametrize("areas", [{}, {"areas": [None, None]}])
def test_ground_truth_without_a_mask_counts_as_the_official_code_counts_it(areas: dict[str, Any]) -> None:
    """Its mean area is 0, which is in the ranges "all" and "small"; no result can match it."""
    empty = {"video_id": 1, "category_id": 1, "segmentations": [None, None]}
    gt = ground_truth(tracklet(1, 1, 500), empty | areas)
    found = tracklet(1, 1, 500, score=0.9)
    for results in ([found], [found, empty | {"score": 0.5}]):
        figures = evaluate_ytvis(gt, results)
        assert [figures[name] for name in ("AR100", "ARs")] == pytest.approx([50, 50])
        assert figures["AP"] == pytest.approx(100 * 51 / 101), "precision is 1 up to a recall of 0.5"
        assert math.isnan(figures["APm"])


def test_equal_scores_keep_the_order_of_the_file() -> None:
    gt = ground_truth(tracklet(1, 1, 500))
    right, wrong = tracklet(1, 1, 500, score=0.5), tracklet(1, 1, 5000, score=0.5)
    assert evaluate_ytvis(gt, [right, wrong])["AP"] == pytest.approx(100)
    assert evaluate_ytvis(gt, [wrong, right])["AP"] == pytest.approx(50)


def test_at_most_a_hundred_results_per_class_count() -> None:
    wrong = [tracklet(1, 1, 9000, score=0.9) for _ in range(100)]
    assert (
        evaluate_ytvis(ground_truth(tracklet(1, 1, 500)), [*wrong, tracklet(1, 1, 500, score=0.1)])["AP"] == 0
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video_id": 3}, "results: video 3, result 0: there is no video 3 in ground truth"),
        ({"video_id": None}, "video None, result 0: 'video_id' must be an integer, not None"),
        ({"category_id": 3}, "results: video 1, result 0: there is no category 3"),
        ({"score": None}, "'score' must be a finite number, not None"),
        ({"score": math.nan}, "'score' must be a finite number, not nan"),
        ({"segmentations": [None]}, "'segmentations' has 1 entries, but the video has 2 frames"),
        ({"segmentations": None}, "'segmentations' must be a list"),
        (
            {"segmentations": [None, {"size": [100, 1000], "counts": [7]}]},
            "frame 1: malformed RLE: .* 7",
        ),
        (
            {"segmentations": [{"size": [9, 9], "counts": [81]}, None]},
            "frame 0: the mask's size",
        ),
    ],
)
def test_malformed_results_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate_ytvis(ground_truth(), [tracklet(1, 1, 500, score=0.5) | change])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"category_id": 7}, "video 1, annotation 1: category_id 7 is not one of the categories 1 to 2"),
        ({"video_id": 7}, "video 7, annotation 1: there is no video with that id"),
        ({"id": "a"}, "video 1, annotation a: the id must be an integer, not 'a'"),
        ({"areas": [1]}, "video 1, annotation 1: 'areas' has 1 entries, but the video has 2 frames"),
        ({"areas": [1, "x"]}, "video 1, annotation 1, frame 1: an area must be a number of pixels, not 'x'"),
        ({"segmentations": [None]}, "video 1, annotation 1: 'segmentations' has 1 entries"),
        (
            {"segmentations": [{"size": [100, 1000], "counts": "1"}, None]},
            "video 1, annotation 1, frame 0: malformed RLE",
        ),
    ],
)
def test_malformed_annotations_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    gt = ground_truth(tracklet(1, 1, 500) | {"id": 1} | change)
    with pytest.raises(InputError, match=f"ground truth: {message}"):
        evaluate_ytvis(gt, [])
    path = tmp_path / "gt.json"
    path.write_text(json.dumps(gt))
    with pytest.raises(InputError, match=f"{path}: {message}"):
        evaluate_ytvis(path, [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": None}, "ground truth: no annotations to compare with"),
        ({"annotations": 1}, "ground truth: 'annotations' must be a list of objects"),
        ({"videos": [{"id": 1}]}, "ground truth: video 1: 'height' must be a positive integer"),
        ({"categories": [{"id": 1}]}, "ground truth: a category needs an integer 'id' and a 'name'"),
    ],
)
def test_malformed_ground_truth_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate_ytvis(ground_truth() | change, [])


def test_results_must_be_a_list() -> None:
    with pytest.raises(InputError, match="results: not a list of objects"):
        evaluate_ytvis(ground_truth(), {})


def test_files_and_their_content_give_the_same(random_case: Callable, tmp_path: Path) -> None:
    case = random_case(3)
    paths = tmp_path / "gt.json", tmp_path / "results.json"
    for path, content in zip(paths, case, strict=True):
        path.write_text(json.dumps(content))
    figures = evaluate_ytvis(*case)
    assert figures["AP"] > 0
    by_category = figures.pop("per_category")
    for again in (evaluate_ytvis(*paths), evaluate_ytvis(str(paths[0]), case[1])):
        assert again.pop("per_category") == pytest.approx(by_category, abs=0, nan_ok=True)
        assert again == pytest.approx(figures, abs=0, nan_ok=True)
