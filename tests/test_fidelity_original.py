"""Agreement with the original release's whole pipeline, through the commands, against the reference figures.

Weights are made in the release's layout, with what its training script saves next to them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from originals import released_file
from PIL import Image
from pycocotools import mask as mask_codec
from reference.weights import make_weights

from seqformer import VideoPredictor, model_zoo
from seqformer.cli.main import main

CASES = ("a", "b", "c")


class Release(NamedTuple):
    options: list[str]
    figures: Mapping[str, np.ndarray]

    def case_options(self, case: str) -> list[str]:
        return [*self.options, "INPUT.MIN_SIZE_TEST", str(self.figures[f"{case}/short_side"])]

    def masks(self, case: str) -> np.ndarray:
        shape = self.figures[f"{case}/mask_shape"]
        bits = np.unpackbits(self.figures[f"{case}/masks"], count=shape.prod())
        return bits.reshape(shape).astype(bool)

    def write_frames(self, case: str, folder: Path) -> Path:
        folder.mkdir(parents=True)
        for t, frame in enumerate(self.figures[f"{case}/frames"]):
            Image.fromarray(frame.transpose(1, 2, 0)).save(folder / f"{t:03d}.png")
        return folder


@pytest.fixture(scope="module")
def release(reference_dir: Path, tmp_path_factory: pytest.TempPathFactory, device: torch.device) -> Release:
    layout = json.loads((reference_dir / "original_r50.json").read_text())
    args = layout["args"]
    folder = tmp_path_factory.mktemp("release")
    weights = released_file(folder / "checkpoint.pth", make_weights(layout["shapes"]), **args)
    keys = {
        "NUM_FEATURE_LEVELS": args["num_feature_levels"],
        "ENC_LAYERS": args["enc_layers"],
        "DEC_LAYERS": args["dec_layers"],
        "DIM_FEEDFORWARD": args["dim_feedforward"],
        "HIDDEN_DIM": args["hidden_dim"],
        "NHEADS": args["nheads"],
        "NUM_OBJECT_QUERIES": args["num_queries"],
        "DEC_N_POINTS": args["dec_n_points"],
        "ENC_N_POINTS": args["enc_n_points"],
        "RESULT_PROTOCOL": "original",
    }
    options = ["MODEL.WEIGHTS", str(weights), "MODEL.DEVICE", str(device)]
    for key, value in keys.items():
        options += [f"MODEL.SeqFormer.{key}", str(value)]
    return Release(options, np.load(reference_dir / "original_r50.npz"))


def assert_results(release: Release, case: str, results: list[dict[str, Any]], slack: float) -> None:
    """Compares results in YouTube-VIS format with the figures."""
    figures, expected = release.figures, release.masks(case)
    assert [result["category_id"] for result in results] == figures[f"{case}/category_ids"].tolist()
    scores = [result["score"] for result in results]
    np.testing.assert_allclose(scores, figures[f"{case}/scores"], rtol=0, atol=1e-5 * slack)
    empty = np.zeros(expected.shape[-2:], dtype=bool)
    for result, masks in zip(results, expected, strict=True):
        actual = [empty if s is None else mask_codec.decode(s) for s in result["segmentations"]]
        assert (np.stack(actual).astype(bool) != masks).mean() <= 1e-4 * slack


@pytest.mark.parametrize("case", CASES)
def test_network_input_and_predictions(release: Release, slack: float, case: str) -> None:
    figures = release.figures
    config = model_zoo.get_config_file("ytvis19/seqformer_R50")
    predictor = VideoPredictor.from_pretrained(config, opts=release.case_options(case))
    stream, network = predictor.stream(), predictor.network
    images = [stream.prepare(frame) for frame in torch.from_numpy(figures[f"{case}/frames"])]
    first = (images[0].to(network.device) - network.pixel_mean) / network.pixel_std
    np.testing.assert_allclose(first.cpu(), figures[f"{case}/network_input_first"], rtol=0, atol=1e-5)
    with torch.no_grad():
        output = network.decode(network.encode(images), len(images))[-1]
        logits = network.classify(-1, output)[0]
    # Row k of the class head is category k, which is class k - 1 here; rows 0 and 41 are unused.
    logits, boxes = logits.cpu(), output.boxes[0].cpu()
    np.testing.assert_allclose(logits, figures[f"{case}/pred_logits"][:, 1:41], rtol=0, atol=1e-4 * slack)
    np.testing.assert_allclose(boxes, figures[f"{case}/pred_boxes"], rtol=0, atol=1e-5 * slack)


@pytest.mark.parametrize("case", CASES)
def test_predict_command(release: Release, slack: float, case: str, tmp_path: Path) -> None:
    pytest.importorskip("av")
    frames = release.write_frames(case, tmp_path / "frames")
    config = str(model_zoo.get_config_file("ytvis19/seqformer_R50"))
    output = ["--output", str(tmp_path / "out.mp4"), "--config-file", config]
    main(["predict", str(frames), *output, "--opts", *release.case_options(case)])
    assert_results(release, case, json.loads((tmp_path / "out.json").read_text()), slack)


@pytest.mark.parametrize("case", CASES)
def test_evaluation_command(release: Release, slack: float, case: str, tmp_path: Path) -> None:
    """The dataset mapper and the evaluator do the same."""
    length, _, height, width = release.figures[f"{case}/frames"].shape
    release.write_frames(case, tmp_path / "frames" / "video")
    mask = mask_codec.encode(np.asfortranarray(release.masks(case)[0, 0].astype(np.uint8)))
    truth = {
        "videos": [
            {
                "id": 1,
                "width": width,
                "height": height,
                "length": length,
                "file_names": [f"video/{t:03d}.png" for t in range(length)],
            }
        ],
        "categories": [{"id": i, "name": str(i)} for i in range(1, 41)],
        "annotations": [
            {
                "id": 1,
                "video_id": 1,
                "category_id": 14,
                "iscrowd": 0,
                "height": height,
                "width": width,
                "segmentations": [{"size": mask["size"], "counts": mask["counts"].decode()}] * length,
            }
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    config = str(model_zoo.get_config_file("ytvis19/seqformer_R50"))
    dataset = f"('ytvis:{tmp_path / 'truth.json'}:{tmp_path / 'frames'}',)"
    options = ["DATASETS.TEST", dataset, "OUTPUT_DIR", str(tmp_path / "out"), "DATALOADER.NUM_WORKERS", "0"]
    main(["train", "--config-file", config, "--eval-only", *release.case_options(case), *options])
    [path] = tmp_path.rglob("results.json")
    assert_results(release, case, json.loads(path.read_text()), slack)
