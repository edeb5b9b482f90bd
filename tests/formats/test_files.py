"""Atomic writing of files and folders, and reading of JSON."""

from __future__ import annotations

from pathlib import Path

import pytest

from seqformer.errors import InputError
from seqformer.formats.files import new_folder, read_json, replaced_when_complete, write_json


def test_old_file_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "data.json"
    write_json(path, [1])
    with pytest.raises(RuntimeError), replaced_when_complete(path) as part:
        part.write_text("[2")
        raise RuntimeError
    assert read_json(path) == [1]
    write_json(path, [3])
    assert read_json(path) == [3]
    assert list(path.parent.iterdir()) == [path]


def test_folder_appears_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "out"
    (tmp_path / "out.part").mkdir()
    (tmp_path / "out.part" / "left from before").touch()
    with pytest.raises(InputError, match="broken"), new_folder(path) as part:
        (part / "a").touch()
        raise InputError("broken")
    assert list(tmp_path.iterdir()) == []
    with new_folder(path) as part:
        (part / "b").touch()
        assert not path.exists()
    assert [file.name for file in path.iterdir()] == ["b"]
    with pytest.raises(InputError, match="exists: remove it"), new_folder(path):
        pass
    assert [file.name for file in path.iterdir()] == ["b"]


def test_unwritable_places(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        write_json(tmp_path / "file" / "data.json", [])
    with pytest.raises(InputError, match="cannot write"), new_folder(tmp_path / "file" / "folder"):
        pass


@pytest.mark.parametrize("content", ["{", "[" * 100_000, '{"a": \udcff}'])
def test_invalid_json(tmp_path: Path, content: str) -> None:
    path = tmp_path / "data.json"
    path.write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(InputError, match=f"'{path}' is not JSON"):
        read_json(path)
