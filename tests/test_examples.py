"""The notebooks and programs in examples/ run as they are."""

from __future__ import annotations

import base64
import io
import runpy
import sys
from fractions import Fraction
from itertools import islice
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

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


@pytest.mark.slow
def test_supervision_draws_masks_labels_and_paths(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with VideoReader(repository / "demo/assets/street.mp4") as video:
        frames = list(islice(video, 6))
    with VideoWriter(tmp_path / "street.mp4", *frames[0].shape[:2], Fraction(10)) as writer:
        for frame in frames:
            writer.write(frame)
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
