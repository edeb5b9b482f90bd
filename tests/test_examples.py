"""The notebooks and programs in examples/ run as they are."""

from __future__ import annotations

import base64
import io
import json
import runpy
import sys
from fractions import Fraction
from itertools import islice
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nbclient import NotebookClient
from PIL import Image
from pycocotools import mask as codec
from scipy.optimize import linear_sum_assignment

from seqformer import VideoPredictor
from seqformer.cli import export
from seqformer.video import VideoReader, VideoWriter


@pytest.fixture(scope="module")
def quickstart(repository: Path) -> dict[str, nbformat.NotebookNode]:
    """The executed cells of quickstart.ipynb by id."""
    notebook = nbformat.read(repository / "examples/quickstart.ipynb", as_version=4)
    nbformat.validate(notebook)
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": repository / "examples"}})
    client.execute()
    return {cell.id: cell for cell in notebook.cells}


def printed(cell: nbformat.NotebookNode) -> list[str]:
    return "".join(output.text for output in cell.outputs if output.get("name") == "stdout").splitlines()


def test_quickstart_finds_people(quickstart: dict[str, nbformat.NotebookNode]) -> None:
    lines = printed(quickstart["predict"])
    assert len(lines) >= 2
    assert all(": person 0." in line for line in lines)
    shape, pixels = printed(quickstart["masks"])[0].rsplit(") ", 1)
    assert shape == "(576, 768"
    assert int(pixels.split()[0]) > 100


def test_quickstart_shows_a_drawn_frame(quickstart: dict[str, nbformat.NotebookNode]) -> None:
    (output,) = (o for o in quickstart["draw"].outputs if o.output_type == "execute_result")
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(output.data["image/png"]))).convert("RGB"))
    assert picture.shape == (576, 768, 3)
    saturation = picture.max(2).astype(int) - picture.min(2)
    assert (saturation > 100).mean() > 0.01  # the street is grey, the drawn masks are not


def test_quickstart_shows_temporal_weights(quickstart: dict[str, nbformat.NotebookNode]) -> None:
    assert printed(quickstart["trace"])[1].count(".") >= 5


def write_street(repository: Path, path: Path) -> list[np.ndarray]:
    """Writes the first frames of the street as a video, and returns them."""
    with VideoReader(repository / "demo/assets/street.mp4") as video:
        frames = list(islice(video, 6))
    with VideoWriter(path, *frames[0].shape[:2], Fraction(10)) as writer:
        for frame in frames:
            writer.write(frame)
    return frames


@pytest.mark.slow
def test_supervision_draws_masks_labels_and_paths(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = write_street(repository, tmp_path / "street.mp4")
    arguments = [str(tmp_path / "street.mp4"), str(tmp_path / "out.mp4")]
    monkeypatch.setattr(sys, "argv", ["annotate_with_supervision.py", *arguments])
    runpy.run_path(str(repository / "examples/annotate_with_supervision.py"), run_name="__main__")
    with VideoReader(tmp_path / "out.mp4") as video:
        drawn = list(video)
    assert len(drawn) == len(frames)
    # The street is grey and green. Masks and labels of at least four people have the first colours of
    # supervision's palette: purple, red, pink, orange.
    last = drawn[-1].astype(int)
    changed = np.abs(last - frames[-1]).max(2) > 60
    assert 0.01 < changed.mean() < 0.2
    for colour in ((163, 81, 251), (255, 64, 64), (255, 161, 160), (255, 118, 51)):
        assert (np.abs(last - colour).max(2) < 40).sum() > 1000


@pytest.mark.slow
def test_an_onnx_export_tracks_a_video_as_the_predictor_does(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    export.main([str(tmp_path / "street")])
    write_street(repository, tmp_path / "street.mp4")
    arguments = [str(tmp_path / name) for name in ("street", "street.mp4", "out.mp4")]
    monkeypatch.setattr(sys, "argv", ["onnx_video.py", *arguments])
    runpy.run_path(str(repository / "examples/onnx_video.py"), run_name="__main__")
    with VideoReader(tmp_path / "street.mp4") as video, VideoReader(tmp_path / "out.mp4") as drawn:
        frames = list(video)
        changed = [np.abs(a.astype(int) - b).max(2) > 60 for a, b in zip(frames, drawn, strict=True)]
    assert 0.01 < np.mean(changed) < 0.2

    predictor = VideoPredictor.from_pretrained(opts=["MODEL.SeqFormer.MOTION_WEIGHT", "0.0"])
    expected = predictor(frames).best_tracklets(0.4)
    results = json.loads((tmp_path / "out.json").read_text())
    assert len(expected) == len(results) >= 4
    for tracklet, result in zip(sorted(expected, key=lambda t: t.instance_id), results, strict=True):
        assert result["score"] == pytest.approx(tracklet.score, abs=0.03)
        masks = [
            codec.decode(codec.frPyObjects(mask, *mask["size"])) if mask else np.zeros(tracklet.size)
            for mask in result["segmentations"]
        ]
        ours, theirs = np.stack(masks) > 0, np.stack([tracklet.masks(t) for t in range(len(frames))])
        assert (ours & theirs).sum() / (ours | theirs).sum() > 0.9  # frames are resized differently


def test_onnx_example_assigns_resizes_and_encodes_like_the_libraries(repository: Path) -> None:
    pytest.importorskip("onnxruntime")
    example = runpy.run_path(str(repository / "examples/onnx_video.py"))
    for _ in range(300):
        similarity = np.random.rand(*np.random.randint(0, 7, 2)).round(1)
        pairs = example["assign"](similarity)
        assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == min(similarity.shape)
        best = similarity[linear_sum_assignment(similarity, maximize=True)].sum()
        assert sum(similarity[pair] for pair in pairs) == pytest.approx(best)
        mask = np.random.rand(5, 7) < np.random.rand()
        lengths = example["run_lengths"](mask)
        np.testing.assert_array_equal(codec.decode(codec.frPyObjects(lengths, *lengths["size"])), mask)
    logits = np.random.rand(5, 7).astype(np.float32)
    enlarged = example["enlarge"](example["enlarge"](logits, 0), 1)
    bilinear = F.interpolate(torch.from_numpy(logits)[None, None], scale_factor=4, mode="bilinear")[0, 0]
    np.testing.assert_allclose(enlarged, bilinear.numpy(), atol=1e-5)
