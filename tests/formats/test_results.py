"""results.json: written atomically; equal masks are read once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seqformer.errors import InputError
from seqformer.formats.results import read_results, write_results
from seqformer.formats.ytvis import Video

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


def test_equal_masks_of_a_video_are_shared_and_others_are_not() -> None:
    videos = {1: Video(1, ["0.jpg", "1.jpg"], 4, 5), 2: Video(2, ["0.jpg", "1.jpg"], 4, 5)}
    entries = [(1, [RLE, None]), (1, [None, RLE]), (1, [dict(RLE), None]), (2, [RLE, None])]
    results = [
        {"video_id": video, "category_id": 1, "score": 0.5, "segmentations": masks}
        for video, masks in entries
    ]
    masks = [result.masks for result in read_results(results, videos)]
    assert masks == [masks for _, masks in entries]
    assert masks[2] is masks[0] and masks[1] is not masks[0] and masks[3] is not masks[0]
    assert all(read is not entry["segmentations"] for read, entry in zip(masks, results, strict=True))


def test_a_size_that_only_one_video_has_is_checked_for_each() -> None:
    videos = {1: Video(1, ["0.jpg"], 4, 5), 2: Video(2, ["0.jpg"], 5, 4)}
    results = [{"video_id": n, "category_id": 1, "score": 0.5, "segmentations": [RLE]} for n in (1, 2)]
    with pytest.raises(InputError, match=r"video 2, result 1, frame 0: the mask's size is \[4, 5\]"):
        list(read_results(results, videos))


@pytest.mark.parametrize("depth", [900, 980])
def test_deep_nesting_is_refused(depth: int) -> None:
    value: list = []
    for _ in range(depth):
        value = [value]
    result = {"video_id": 1, "category_id": 1, "score": 0.5, "segmentations": [RLE, value]}
    for key in result:
        with pytest.raises(InputError):
            list(read_results([result | {key: value}], {1: Video(1, ["0.jpg", "1.jpg"], 4, 5)}))
