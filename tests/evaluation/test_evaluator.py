"""The evaluator: from model outputs to results.json and metrics."""

from __future__ import annotations

import gc
import json
import tracemalloc
import weakref
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import print_csv_format

from seqformer.data import load_ytvis_json, register_ytvis_instances
from seqformer.data.toy import make_toy_dataset
from seqformer.errors import InputError
from seqformer.evaluation import YTVISEvaluator
from seqformer.evaluation.ytvis import METRICS
from seqformer.formats.rle import decode_mask, encode_masks
from seqformer.structures import Tracklet, VideoResult

NAME = "toy_evaluator"


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A registered dataset of two videos with the category ids 1, 2 and 3."""
    json_file, _, frames = make_toy_dataset(tmp_path, num_train=2, num_val=0, length=3, size=(48, 64))
    register_ytvis_instances(NAME, {}, json_file, frames)
    yield json_file, frames
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def perfect_output(video: dict[str, Any]) -> dict[str, Any]:
    """The outputs of a model that makes no mistakes."""
    masks: dict[int, torch.Tensor] = {}
    labels: dict[int, int] = {}
    for t, frame in enumerate(video["annotations"]):
        for annotation in frame:
            id_ = annotation["id"]
            labels[id_] = annotation["category_id"]
            masks.setdefault(id_, torch.zeros(3, 48, 64, dtype=torch.bool))
            masks[id_][t] = torch.tensor(decode_mask(annotation["segmentation"])).bool()
    return {
        "image_size": (48, 64),
        "pred_scores": [0.9] * len(masks),
        "pred_labels": list(labels.values()),
        "pred_masks": list(masks.values()),
    }


def test_perfect_model(toy: tuple[Path, Path], tmp_path: Path) -> None:
    evaluator = YTVISEvaluator(NAME, tmp_path / "out")
    for _ in range(2):  # a second run starts from scratch
        evaluator.reset()
        for video in load_ytvis_json(*toy):
            inputs = [{"video_id": video["video_id"], "length": 3}]
            evaluator.process(inputs, perfect_output(video))
        figures = evaluator.evaluate()["segm"]
    assert figures["AP"] == pytest.approx(100)
    assert list(figures)[:12] == list(METRICS) and list(figures)[-1] == "id_switches"
    assert figures["id_switches"] == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["results.json"], "no submission"
    assert {name for name in figures if name.startswith("AP-")} == {"AP-circle", "AP-square", "AP-triangle"}
    annotations = json.loads(toy[0].read_text())["annotations"]
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(results) == len(annotations)
    for result in results:
        assert any(
            all(result[key] == a[key] for key in ("video_id", "category_id", "segmentations"))
            for a in annotations
        )


def test_tracking_metrics_if_asked_for(toy: tuple[Path, Path]) -> None:
    evaluator = YTVISEvaluator(NAME, tracking_metrics=True, score_threshold=0.95)
    for video in load_ytvis_json(*toy):
        output = perfect_output(video)
        output["pred_scores"][0] = 0.96
        evaluator.process([{"video_id": video["video_id"], "length": 3}], output)
    figures = evaluator.evaluate()
    assert list(figures) == ["segm", "tracking", "tracking_class_averaged"]
    assert figures["segm"]["AP"] == pytest.approx(100), "all results count"
    tracking = figures["tracking"]
    assert tracking["IDP"] == pytest.approx(100) and 0 < tracking["IDR"] < 50, "one of three instances"
    assert {name for name in tracking if "-" in name} == {"HOTA-circle", "HOTA-square", "HOTA-triangle"}
    assert figures["tracking_class_averaged"]["HOTA"] == pytest.approx(
        sum(tracking[name] for name in tracking if "-" in name) / 3
    )
    print_csv_format(figures)


def test_wrong_score_threshold(toy: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match="from 0 to 1, not -0.5"):
        YTVISEvaluator(NAME, score_threshold=-0.5)


def test_classes_of_one_instance_share_its_masks(toy: tuple[Path, Path], tmp_path: Path) -> None:
    mask = torch.zeros(3, 48, 64, dtype=torch.bool)
    mask[1, 3:9, 4:8] = True
    output = {
        "image_size": (48, 64),
        "pred_scores": [0.9, 0.4],
        "pred_labels": [0, 2],
        "pred_masks": [mask, mask],
    }
    evaluator = YTVISEvaluator(NAME, tmp_path)
    evaluator.reset()
    evaluator.process([{"video_id": 1, "length": 3}], output)
    evaluator.evaluate()
    results = json.loads((tmp_path / "results.json").read_text())
    assert [(r["category_id"], r["score"]) for r in results] == [(1, 0.9), (3, 0.4)]
    assert results[0]["segmentations"] == results[1]["segmentations"]
    assert [s is None for s in results[0]["segmentations"]] == [True, False, True]


def test_a_video_result_is_taken_as_it_is(toy: tuple[Path, Path], tmp_path: Path) -> None:
    """Its RLEs are not encoded again, and the masks next to it are not read."""
    mask = torch.zeros(3, 48, 64, dtype=torch.bool)
    mask[1, 3:9, 4:8] = True
    rles = encode_masks(mask.numpy())
    result = VideoResult(48, 64, 3, [Tracklet(0, 0, 0.9, rles), Tracklet(0, 2, 0.4, rles)])
    plain = {"image_size": (48, 64), "pred_scores": [0.9, 0.4], "pred_labels": [0, 2]}
    written = []
    for output in ({"video_result": result, "pred_masks": None}, plain | {"pred_masks": [mask, mask]}):
        evaluator = YTVISEvaluator(NAME, tmp_path)
        evaluator.process([{"video_id": 1, "length": 3}], output)
        evaluator.evaluate()
        written.append((tmp_path / "results.json").read_text())
    assert written[0] == written[1] and json.loads(written[0])[1]["category_id"] == 3


def test_results_without_annotations(toy: tuple[Path, Path], tmp_path: Path) -> None:
    data = json.loads(toy[0].read_text())
    del data["annotations"]
    toy[0].write_text(json.dumps(data))
    evaluator = YTVISEvaluator(NAME, tmp_path / "out")
    evaluator.reset()
    mask = torch.zeros(3, 48, 64, dtype=torch.bool)
    mask[1:, 3:9, 4:8] = True
    output = {"image_size": (48, 64), "pred_scores": [0.5], "pred_labels": [2], "pred_masks": [mask]}
    evaluator.process([{"video_id": 2, "length": 3}], output)
    assert evaluator.evaluate() == {}
    (result,) = json.loads((tmp_path / "out" / "results.json").read_text())
    rle = encode_masks(mask.numpy())[1]
    assert result == {"video_id": 2, "category_id": 3, "score": 0.5, "segmentations": [None, rle, rle]}
    with zipfile.ZipFile(tmp_path / "out" / "results.zip") as submission:
        assert submission.namelist() == ["results.json"]
        assert json.loads(submission.read("results.json")) == [result]


def test_results_are_in_the_order_of_the_dataset(toy: tuple[Path, Path], tmp_path: Path) -> None:
    evaluator = YTVISEvaluator(NAME, tmp_path)
    evaluator.reset()
    for video in reversed(load_ytvis_json(*toy)):
        evaluator.process([{"video_id": video["video_id"], "length": 3}], perfect_output(video))
    evaluator.evaluate()
    results = json.loads((tmp_path / "results.json").read_text())
    assert [result["video_id"] for result in results] == [1, 1, 1, 2, 2, 2]


def test_results_in_memory_do_not_grow_with_pixels(toy: tuple[Path, Path]) -> None:
    """15 frames of 360p with ten masks are 35 MB of pixels; only a few RLEs are kept.

    Masks of PyTorch are either still there or not; tracemalloc sees arrays of NumPy.
    """
    evaluator = YTVISEvaluator(NAME)
    evaluator.reset()
    masks = torch.zeros(10, 15, 360, 640, dtype=torch.bool)
    masks[:, :, 30:200, 40:300] = True
    output = {
        "image_size": (360, 640),
        "pred_scores": [0.5] * 10,
        "pred_labels": [0] * 10,
        "pred_masks": list(masks),
    }
    evaluator.process([{"video_id": 1, "length": 15}], output)
    tracemalloc.start()
    evaluator.process([{"video_id": 2, "length": 15}], output)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < masks.numel() / 100
    pixels = weakref.ref(masks)
    del masks, output
    gc.collect()
    assert pixels() is None, "the evaluator holds masks"


def test_class_that_is_not_in_the_dataset(toy: tuple[Path, Path]) -> None:
    evaluator = YTVISEvaluator(NAME)
    evaluator.reset()
    output = {
        "image_size": (48, 64),
        "pred_scores": [0.9],
        "pred_labels": [3],
        "pred_masks": [torch.zeros(3, 48, 64, dtype=torch.bool)],
    }
    with pytest.raises(InputError, match="class 3 .* 3 classes"):
        evaluator.process([{"video_id": 1, "length": 3}], output)
