"""Files in PyTorch's format that it would take minutes to refuse, or gigabytes to read."""

from __future__ import annotations

import pickle
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from seqformer.checkpoints import read_checkpoint
from seqformer.checkpoints.pickles import check_pickles
from seqformer.errors import InputError

SIZE = 100_000
TEXT = b"X" + SIZE.to_bytes(4, "little") + b"a" * SIZE


def write(path: Path, data: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("m/data.pkl", data)
        archive.writestr("m/version", "3")
        archive.writestr("m/byteorder", "little")
    return path


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (b"c" + b"a" * SIZE + b"\nb\n", "a name has 100002 characters"),
        (b"cos\n" + b"a." * SIZE + b"\n", "a name has 200003 characters"),
        (TEXT + b")R", "not a function"),
        (TEXT + b")\x81", "not a function"),
        (TEXT + b"q\0h\0)R", "not a function"),
        (b"ccollections\nOrderedDict\n)R" + TEXT + b"K\1s)R", "not a function"),
        (b")R", "not a function"),
        (b"s", "stack is empty"),
        (b"u", "IndexError"),
    ],
    ids=range(9),
)
def test_pickles_that_are_refused_at_once(tmp_path: Path, code: bytes, message: str) -> None:
    path = write(tmp_path / "a.pth", b"\x80\x02" + code + b".")
    start = time.monotonic()
    with pytest.raises(InputError, match=message):
        read_checkpoint(path)
    assert time.monotonic() - start < 2


def test_archives_that_are_larger_than_they_seem(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pth", pickle.dumps({"a": "a" * 10**6}, 2), zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match="compressed or overlap"):
        read_checkpoint(path)


def test_the_first_bytes_tell_the_format(tmp_path: Path) -> None:
    """PyTorch reads pickles of a file that is an archive only by its end."""
    archive = write(tmp_path / "a.pth", pickle.dumps({}, 2))
    legacy = tmp_path / "b.pth"
    legacy.write_bytes(b"\x80\x02" + TEXT + b")R." + archive.read_bytes())
    with pytest.raises(InputError, match="not a function"):
        read_checkpoint(legacy)


@pytest.mark.parametrize("archive", [True, False])
def test_what_training_scripts_save(tmp_path: Path, archive: bool) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(4, 2)).sum().backward()
    optimizer.step()
    content = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "array": np.zeros(SIZE, np.uint8),
        "text": "a" * SIZE,
        "parameter": torch.nn.Parameter(torch.zeros(1)),
    }
    path = tmp_path / "a.pth"
    torch.save(content, path, _use_new_zipfile_serialization=archive)
    check_pickles(path)
    assert read_checkpoint(path)["text"] == content["text"]
