"""meta.json: what is found and read, and errors that name the entry. Round trips are in test_round_trips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from seqformer.errors import InputError
from seqformer.formats.labelled import read_labelled
from seqformer.formats.meta import MetaObject, MetaVideo, find_meta, read_meta, write_meta


def test_what_is_written_and_read(made: Any) -> None:
    names, videos = read_labelled(*made.write())
    write_meta(made.root, names, ((video.folder, video, [7, 3]) for video in videos))
    path = find_meta(made.root)
    assert path == made.root / "meta.json"
    meta = read_meta(path)
    assert meta.names == {1: "car", 2: "person"}
    objects = {7: MetaObject(2, 3, 0.9 - 0.1 * 2), 3: MetaObject(1, 4, 0.9 - 0.1 * 3)}
    assert meta.video("b") == MetaVideo(objects, 2, ["b/00000.jpg", "b/00001.jpg"])
    assert meta.video("c") == MetaVideo()


def test_other_files_of_that_name_are_not_used(tmp_path: Path) -> None:
    assert find_meta(tmp_path) is None
    for content in ([], {"videos": {}}, {"categories": []}):
        (tmp_path / "meta.json").write_text(json.dumps(content))
        assert find_meta(tmp_path) is None


def entry(**values: Any) -> dict[str, Any]:
    return {"objects": {"1": {"category": "car"} | values}}


@pytest.mark.parametrize(
    ("video", "message"),
    [
        (entry(category="cow"), "'cow' is not among its 'categories'"),
        (entry(id="a"), "video 'v', object 1: 'id' must be an integer, not 'a'"),
        (entry(score="a"), "video 'v', object 1: 'score' must be a number, not 'a'"),
        (entry() | {"id": 0.5}, "video 'v': 'id' must be an integer, not 0.5"),
        (entry() | {"file_names": []}, "video 'v': 'file_names' must be a list of at least one name"),
        (entry() | {"file_names": [1]}, "video 'v': 'file_names' must be a list of at least one name"),
        (
            {"objects": {"1": {"category": "car"}, "01": {"category": "car"}}},
            "two objects have the same number",
        ),
        ({"objects": {"x": {"category": "car"}}}, "is not YouTube-VOS's meta.json"),
        ({"objects": {"9" * 5000: {"category": "car"}}}, "is not YouTube-VOS's meta.json"),
        ({"objects": []}, "is not YouTube-VOS's meta.json"),
        ({}, "is not YouTube-VOS's meta.json"),
    ],
)
def test_malformed_entries(tmp_path: Path, video: Any, message: str) -> None:
    path = tmp_path / "meta.json"
    path.write_text(json.dumps({"categories": [{"id": 1, "name": "car"}], "videos": {"v": video}}))
    with pytest.raises(InputError, match=message):
        read_meta(path)
