"""Agreement with TrackEval on its YouTubeVIS dataset, to 1e-6."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trackeval import Evaluator
from trackeval.datasets import YouTubeVIS
from trackeval.metrics import CLEAR, HOTA, Identity, TrackMAP

from seqformer.evaluation import Evaluation, evaluate
from seqformer.evaluation.tracking_metrics import TRACKING_METRICS
from seqformer.formats.rle import encode_masks, rle_counts

QUIET = {"PRINT_CONFIG": False}
AREAS = [[0, 128**2], [128**2, 256**2], [256**2, 1e10]]


def run_trackeval(gt: dict[str, Any], results: list[dict[str, Any]], folder: Path, limit: int = 100) -> Any:
    """TrackEval's results: by video or "COMBINED_SEQ", by category, by metric."""
    gt, results = copy.deepcopy((gt, results))
    sizes = {video["id"]: (video["height"], video["width"]) for video in gt["videos"]}
    for annotation in gt["annotations"]:
        masks = annotation["segmentations"]
        # It reads uncompressed RLEs only, and needs areas and sizes.
        annotation["segmentations"] = [m and {**m, "counts": rle_counts(m["counts"]).tolist()} for m in masks]
        annotation["areas"] = [m and int(rle_counts(m["counts"])[1::2].sum()) for m in masks]
        annotation["height"], annotation["width"] = sizes[annotation["video_id"]]
    for part, content in (("gt/youtube_vis_made", gt), ("results/youtube_vis_made/ours/data", results)):
        (folder / part).mkdir(parents=True)
        (folder / part / "content.json").write_text(json.dumps(content))
    dataset = YouTubeVIS(
        {
            "GT_FOLDER": f"{folder}/gt/",
            "TRACKERS_FOLDER": f"{folder}/results/",
            "SPLIT_TO_EVAL": "made",
            **QUIET,
        }
    )
    dataset.global_tid_counter = 1  # TrackMAP treats 0 as "not matched"
    evaluator = Evaluator(
        {
            "PRINT_RESULTS": False,
            "TIME_PROGRESS": False,
            "OUTPUT_SUMMARY": False,
            "OUTPUT_DETAILED": False,
            "PLOT_CURVES": False,
            "LOG_ON_ERROR": None,
            **QUIET,
        }
    )
    average = {"AREA_RANGES": AREAS, "USE_TIME_RANGES": False, "MAX_DETECTIONS": limit, **QUIET}
    metrics = [HOTA(), CLEAR(dict(QUIET)), Identity(dict(QUIET)), TrackMAP(average)]
    output, _ = evaluator.evaluate([dataset], metrics)
    return output["YouTubeVIS"]["ours"]


def tracking_figures(theirs: dict[str, Any]) -> dict[str, float]:
    """TrackEval's figures of one row, as ours: the mean over the thresholds of HOTA, in percent."""
    figures = {
        name: 100 * float(np.mean(theirs[family][name]))
        for family, names in TRACKING_METRICS.items()
        for name in names
    }
    figures["IDSW"] /= 100
    return figures


def average_precision_figures(theirs: dict[str, Any], limit: int) -> dict[str, float]:
    """TrackEval's AP and AR of one row, as ours; it writes -1 for missing values."""
    values = theirs["TrackMAP"]
    means = {f"AR{limit}": np.mean(values["AR_all"])}
    if limit == 100:
        means |= {"AP": np.mean(values["AP_all"]), "AP50": values["AP_all"][0], "AP75": values["AP_all"][5]}
        for letter in "sml":
            means[f"AP{letter}"] = np.mean(values[f"AP_area_{letter}"])
            means[f"AR{letter}"] = np.mean(values[f"AR_area_{letter}"])
    return {name: np.nan if value == -1 else 100 * float(value) for name, value in means.items()}


def assert_tracking_agrees(gt: dict[str, Any], ours: Evaluation, theirs: Any) -> None:
    def same(figures: dict[str, float], expected: dict[str, Any]) -> None:
        for name, value in tracking_figures(expected).items():
            assert figures[name] == pytest.approx(value, abs=1e-6), name

    combined = theirs["COMBINED_SEQ"]
    same(ours.class_averaged, combined["cls_comb_cls_av"])
    same(ours.detection_averaged, combined["cls_comb_det_av"])
    for category in gt["categories"]:
        same(ours.categories[category["id"]], combined[category["name"]])


@pytest.fixture
def moving_case() -> Callable[[int], tuple[dict[str, Any], list[dict[str, Any]]]]:
    """By seed: discs that cross and hide, and results that swap ids, break off, and double each other."""

    def make(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        rng = np.random.default_rng(seed)
        categories = [{"id": k, "name": f"class {k}"} for k in (2, 3, 7)]
        videos, annotations, results = [], [], []
        y, x = np.mgrid[:48, :64]
        for video in range(1, 4):
            length = int(rng.integers(6, 15))
            names = [f"video_{video}/{t:05d}.jpg" for t in range(length)]
            videos.append({"id": video, "height": 48, "width": 64, "file_names": names})
            for category in (2, 3):
                count = int(rng.integers(1, 5))
                ends = rng.uniform(0, 1, (2, count, 2)) * (48, 64)
                centres = np.linspace(ends[0], ends[1], length)  # T, N, 2
                radii = rng.uniform(5, 10, count)

                def discs(shift: float, centres=centres, radii=radii, rng=rng) -> np.ndarray:
                    moved = centres + rng.normal(0, 1, centres.shape) * shift
                    distance = np.hypot(y - moved[..., 0, None, None], x - moved[..., 1, None, None])
                    masks = distance < radii[:, None, None]  # T, N, H, W
                    masks[rng.random(masks.shape[:2]) < 0.15] = False
                    return masks

                entry = {"video_id": video, "category_id": category}
                for masks in discs(0).swapaxes(0, 1):
                    new = {"id": len(annotations) + 1, "iscrowd": 0, "segmentations": encode_masks(masks)}
                    annotations.append(entry | new)
                for _ in range(int(rng.integers(1, 3))):
                    found = discs(float(rng.uniform(0, 3)))
                    for t in rng.integers(0, length, 2):  # from here on ids change
                        found[t:] = found[t:, rng.permutation(count)]
                    for masks in found.swapaxes(0, 1):
                        score = float(np.round(rng.random(), 2))
                        results.append(entry | {"score": score, "segmentations": encode_masks(masks)})
                    results.append(results[-1] | {"score": 0.5})  # equal masks
        return {"videos": videos, "categories": categories, "annotations": annotations}, results

    return make


@pytest.mark.parametrize("seed", range(6))
def test_moving_instances(moving_case: Callable, seed: int, tmp_path: Path) -> None:
    gt, results = moving_case(seed)
    ours, theirs = evaluate(gt, results, per_video=True), run_trackeval(gt, results, tmp_path)
    assert_tracking_agrees(gt, ours, theirs)
    assert 0 < ours.detection_averaged["HOTA"] < 100 and ours.detection_averaged["IDSW"] > 0
    # Our row of a video has all its categories, that of TrackEval one.
    for video in gt["videos"]:
        by_category = theirs[f"video_{video['id']}"]
        switches = sum(by_category[category["name"]]["CLEAR"]["IDSW"] for category in gt["categories"])
        assert ours.videos[video["id"]]["IDSW"] == switches


@pytest.mark.parametrize("seed", range(6))
def test_gaps_crowds_ties_and_empty_categories(random_case: Callable, seed: int, tmp_path: Path) -> None:
    gt, results = random_case(seed)
    assert_tracking_agrees(gt, evaluate(gt, results), run_trackeval(gt, results, tmp_path))


@pytest.mark.parametrize("seed", range(3))
def test_a_video_alone_has_the_figures_of_its_row(moving_case: Callable, seed: int, tmp_path: Path) -> None:
    gt, results = moving_case(seed)
    ours = evaluate(gt, results, per_video=True)
    alone = gt | {
        key: [e for e in gt[key] if e.get("video_id", e["id"]) == 2] for key in ("videos", "annotations")
    }
    theirs = run_trackeval(alone, [r for r in results if r["video_id"] == 2], tmp_path)
    expected = tracking_figures(theirs["COMBINED_SEQ"]["cls_comb_det_av"])
    expected |= average_precision_figures(theirs["COMBINED_SEQ"]["cls_comb_cls_av"], 100)
    assert ours.videos[2] | expected == pytest.approx(ours.videos[2], abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("limit", [1, 10, 100])
@pytest.mark.parametrize("make", ["moving_case", "random_case"])
def test_average_precision(make: str, limit: int, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    gt, results = request.getfixturevalue(make)(4)
    for annotation in gt["annotations"]:
        annotation["iscrowd"] = 0  # TrackMAP matches a crowd once, the official code any number of times
    ours = evaluate(gt, results, ["AP"])
    theirs = run_trackeval(gt, results, tmp_path, limit)["COMBINED_SEQ"]
    rows = [(ours.class_averaged, theirs["cls_comb_cls_av"])]
    rows += [(ours.categories[c["id"]], theirs[c["name"]]) for c in gt["categories"]]
    for figures, row in rows:
        expected = average_precision_figures(row, limit)
        assert {name: figures[name] for name in expected} == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_a_score_threshold_is_the_same_as_leaving_results_out(moving_case: Callable, tmp_path: Path) -> None:
    gt, results = moving_case(1)
    kept = [result for result in results if result["score"] >= 0.5]
    assert 0 < len(kept) < len(results)
    ours = evaluate(gt, results, TRACKING_METRICS, score_threshold=0.5)
    assert_tracking_agrees(gt, ours, run_trackeval(gt, kept, tmp_path))
    assert ours.class_averaged != evaluate(gt, results, TRACKING_METRICS).class_averaged
