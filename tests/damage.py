"""Damages files at random: values in JSON, words of text, bytes of everything else."""

from __future__ import annotations

import copy
import json
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from all_formats import FORMATS, Format, save

from seqformer.errors import InputError, one_line
from seqformer.formats.labelled import read_labelled
from seqformer.formats.rle import encode_masks
from seqformer.formats.yolo import read_yolo, write_yolo
from seqformer.formats.ytvis import Dataset, Video

__all__ = ["ALL", "copy_of", "damage", "is_clear", "write_all"]

ALL = FORMATS | {"yolo": Format(write_yolo, lambda out, frames: read_yolo(out, frames))}
_DEPTHS = (300, 900, 980, 100_000)  # some of them are read, and are too deep for repr() later
_DEEP, _LONG = "@deep", "@long"  # written in place of these strings
_VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    0.5,
    1e308,
    float("nan"),
    float("inf"),
    2**31,
    2**32,
    2**63,
    10**30,
    10**400,
    24000,
    10**6,
    "",
    "x",
    "1",
    ".",
    "..",
    "../a",
    "/",
    "a/",
    "\0",
    "\ud800",
    "a\nb\x1b[31m",
    "a" * 300,
    "a" * 5000,
    [],
    {},
    [[]],
    [1],
    {"a": 1},
    _LONG,
    *(f"{_DEEP}{depth}" for depth in _DEPTHS),
]
_BYTES = [
    b"",
    b"\0",
    b"-1",
    b"9" * 30,
    b"9" * 5000,
    b"4294967296",
    b"nan",
    b"1e999",
    b"\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\xff" * 8,
    b"<",
    b'"',
    b"]",
    b"[" * 100_000,
    b"&x;",
    b"..",
    b"\n",
    b"\x1b[31m",
]
_LONGEST_NAME = 10_000  # bytes
_MOST_CHANGES = 8  # in a file that is not text


def write_all(root: Path) -> None:
    """Writes dataset.json with its frames, and a folder or file of each format, named after it."""
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


def copy_of(sample: Path, folder: Path) -> tuple[Path, list[Path]]:
    """Copies a file or folder into a folder; returns the copy and its files. Without a suffix it is JSON."""
    if sample.is_file():
        copy = Path(shutil.copy(sample, (folder / sample.name).with_suffix(sample.suffix or ".json")))
        return copy, [copy]
    copy = shutil.copytree(sample, folder / sample.name)
    return copy, sorted(path for path in copy.rglob("*") if path.is_file())


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """The containers in a JSON value, with the key of each of their entries."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in entries:
        yield value, key
        if isinstance(inner, dict | list):
            yield from places(inner)


def damage(path: Path, source: random.Random) -> None:
    """Damages a file. Nine of ten JSON files stay JSON."""
    data = path.read_bytes()
    if path.suffix == ".json" and source.random() < 0.9:
        path.write_bytes(_with_other_values(json.loads(data), source))
        return
    words = [] if b"\0" in data else [word.span() for word in re.finditer(rb'"[^"]*"|[-+.\w]+', data)]
    if words and source.random() < 0.5:
        start, end = source.choice(words)
        quotes = b'"' if data[start:end].startswith(b'"') else b""
        path.write_bytes(data[:start] + quotes + source.choice(_BYTES) + quotes + data[end:])
        return
    for _ in range(1 if words else source.randint(1, _MOST_CHANGES)):
        # Headers decide most, so half of the places are near the beginning or the end.
        near = source.choice([len(data), len(data), 64, 512])
        start = source.randrange(min(near, len(data)) + 1)
        if source.random() < 0.2:
            start = len(data) - start
        kind = source.random()
        if kind < 0.3:
            replaced, end = bytes([source.randrange(256)]), start + 1
        elif kind < 0.35:
            replaced, end = b"", len(data)
        else:
            # PyTorch searches its error messages in time that grows with the square of a name's length.
            replaced = source.choice(_BYTES)[: None if words else _LONGEST_NAME]
            end = start + source.choice([0, 1, len(replaced), len(replaced), 4, 1000])
        data = data[:start] + replaced + data[end:]
    path.write_bytes(data)


def _with_other_values(content: Any, source: random.Random) -> bytes:
    for _ in range(source.choice([1, 1, 2])):
        container, key = source.choice(list(places(content)) or [(None, None)])
        choice = source.random()
        if container is None:
            break
        if choice < 0.15:
            del container[key]
        elif choice < 0.25 and isinstance(container, list):
            container.append(copy.deepcopy(container[key]))
        else:
            container[key] = copy.deepcopy(source.choice(_VALUES))
    text = json.dumps(content).replace(f'"{_LONG}"', "9" * 5000)
    text = re.sub(rf'"{_DEEP}(\d+)"', lambda found: "[" * int(found[1]) + "]" * int(found[1]), text)
    return text.encode("ascii")


def is_clear(error: InputError) -> bool:
    """Whether the line that a command prints can be printed and says something."""
    line = one_line(error)
    return bool(line) and len(line.splitlines()) == 1 and len(line) < 10_000
