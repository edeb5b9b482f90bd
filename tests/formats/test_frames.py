"""Frames in folders: which files are pictures, their order, and datasets of bare frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from seqformer.errors import InputError
from seqformer.formats.builder import read_frames
from seqformer.formats.files import natural_order
from seqformer.formats.frames import list_pictures, pictures_in


def test_natural_order() -> None:
    names = ["10.png", "9.png", "a2/1", "a10/1", "A3/1", "a3/1", "frame01.png", "frame1.png", "b"]
    expected = ["9.png", "10.png", "a2/1", "A3/1", "a3/1", "a10/1", "b", "frame01.png", "frame1.png"]
    for order in (names, names[::-1]):
        assert sorted(order, key=natural_order) == expected


def test_list_pictures(tmp_path: Path) -> None:
    for name in ("10.TIFF", "9.ppm", "._9.ppm", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in pictures_in(tmp_path)] == ["9.ppm", "10.TIFF"]
    assert list(list_pictures(tmp_path)) == ["9", "10"]
    (tmp_path / "9.png").touch()
    with pytest.raises(InputError, match="9.png' and '.*9.ppm' have the same name"):
        list_pictures(tmp_path)
    with pytest.raises(InputError, match="cannot read the folder"):
        pictures_in(tmp_path / "none")


def test_frames_without_annotations(made: Any) -> None:
    dataset = made.checked(read_frames(made.frames, ["person", "car", "person"]))
    assert [video.names[0] for video in dataset.videos.values()] == ["a/00000.jpg", "b/00000.jpg"]
    assert (dataset.names, dataset.annotations) == ({1: "person", 2: "car"}, None)
    (made.frames / "c").mkdir()
    with pytest.raises(InputError, match="c': no frames"):
        read_frames(made.frames, ["person"])
