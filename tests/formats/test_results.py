"""results.json is written atomically."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seqformer.errors import InputError
from seqformer.formats.results import write_results

RLE = {"size": [4, 5], "counts": "5:5"}


def test_written_file_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.json"
    for results in ([], [{"score": 0.5}], [{"score": 0.5}, {"segmentations": [RLE, None]}]):
        write_results(path, iter(results))
        assert path.read_text() == json.dumps(results)
    assert list(path.parent.iterdir()) == [path]


def test_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_results(path, [])
    with pytest.raises(TypeError):
        write_results(path, [{"score": object()}])
    assert list(tmp_path.iterdir()) == [path]
    assert json.loads(path.read_text()) == []


def test_unwritable_path(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write .*results.json"):
        write_results(tmp_path / "file" / "results.json", [])
