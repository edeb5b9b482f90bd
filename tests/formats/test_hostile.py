"""Files changed in any place are read, or refused with an InputError of one line, and never anything else."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from all_formats import FORMATS, Format, save
from hypothesis import given, settings
from hypothesis import strategies as st

from seqformer.errors import InputError
from seqformer.formats.labelled import read_labelled
from seqformer.formats.rle import encode_masks
from seqformer.formats.yolo import read_yolo, write_yolo
from seqformer.formats.ytvis import Dataset, Video

ALL = FORMATS | {"yolo": Format(write_yolo, lambda out, frames: read_yolo(out, frames))}
VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    0.5,
    1e308,
    float("nan"),
    float("inf"),
    2**31,
    2**63,
    10**30,
    "",
    "x",
    "1",
    "..",
    "../a",
    "/",
    "a/",
    "\0",
    "\ud800",
    "a" * 300,
    [],
    {},
    [[]],
    [1],
    {"a": 1},
]
BYTES = [
    b"",
    b"\0",
    b"-1",
    b"9" * 30,
    b"9" * 5000,
    b"nan",
    b"1e999",
    b"\xff",
    b"<",
    b'"',
    b"]",
    b"&x;",
    b"\n",
]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with its frames, and a folder of each format; do not change it."""
    root = tmp_path_factory.mktemp("hostile")
    dataset = Dataset({1: "car", 7: "person"}, {}, [])
    masks = np.zeros((2, 2, 6, 8), dtype=bool)
    masks[0, :, 1:4, 1:4], masks[1, 1, 4:, 5:] = True, True
    for id_ in (1, 2):
        video = dataset.videos[id_] = Video(id_, [f"{id_}/{t}.png" for t in range(2)], 6, 8)
        for category, mask in zip((1, 7), masks, strict=True):
            dataset.annotate(video, category, encode_masks(mask))
    names, videos = read_labelled(save(dataset, root))
    for name, form in ALL.items():
        form.write(videos, names, root / name)
    return root


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """The containers in a JSON value, with the key of each of their entries."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in entries:
        yield value, key
        if isinstance(inner, dict | list):
            yield from places(inner)


def damage(path: Path, source: random.Random) -> None:
    if path.suffix == ".json" and source.random() < 0.9:
        content = json.loads(path.read_text())
        container, key = source.choice(list(places(content)))
        choice = source.random()
        if choice < 0.15:
            del container[key]
        elif choice < 0.25 and isinstance(container, list):
            container.append(container[key])
        else:
            container[key] = source.choice(VALUES)
        path.write_text(json.dumps(content))
        return
    data = path.read_bytes()
    start = source.randrange(len(data) + 1)
    end = min(len(data), start + source.choice([0, 1, 1, 4, 1000]))
    path.write_bytes(data[:start] + source.choice(BYTES) + data[end:])


def is_clear(error: InputError) -> bool:
    return bool(str(error)) and len(str(error)) < 20_000


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=100)
@given(seed=st.integers(0, 2**32))
def test_readers(name: str, seed: int, written: Path) -> None:
    source = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        copy = shutil.copytree if (written / name).is_dir() else shutil.copy
        copy(written / name, out)
        files = sorted(path for path in out.rglob("*") if path.is_file()) or [out]
        path = source.choice(files)
        if out.is_file():
            path = out.rename(out.with_suffix(".json"))
            out = path
        damage(path, source)
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
