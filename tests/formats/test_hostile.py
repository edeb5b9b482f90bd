"""Files changed in any place are read, or refused with an InputError of one line, and never anything else."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

import pytest
from damage import ALL, copy_of, damage, is_clear, write_all
from hypothesis import given, settings
from hypothesis import strategies as st

from seqformer.errors import InputError
from seqformer.formats.labelled import read_labelled


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with its frames, and a folder of each format; do not change it."""
    root = tmp_path_factory.mktemp("hostile")
    write_all(root)
    return root


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=100)
@given(seed=st.integers(0, 2**32))
def test_readers(name: str, seed: int, written: Path) -> None:
    source = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        out, files = copy_of(written / name, Path(folder))
        damage(source.choice(files), source)
        try:
            ALL[name].read(out, written / "frames")
        except InputError as error:
            assert is_clear(error)


@settings(max_examples=150)
@given(seed=st.integers(0, 2**32))
def test_writers(seed: int, written: Path) -> None:
    source = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        path = root / "dataset.json"
        shutil.copy(written / "dataset.json", path)
        damage(path, source)
        inside = root / "inside"
        inside.mkdir()
        for name, form in ALL.items():
            try:
                names, videos = read_labelled(path)
                form.write(videos, names, inside / name)
            except InputError as error:
                assert is_clear(error)
        assert sorted(entry.name for entry in root.iterdir()) == ["dataset.json", "inside"]
        assert {entry.name for entry in inside.iterdir()} <= set(ALL)
