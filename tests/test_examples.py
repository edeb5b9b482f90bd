"""The notebooks in examples/ run as they are."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image


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
