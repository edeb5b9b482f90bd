"""Opening videos of datasets and other videos."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from videos import cut, encode, pictures

from seqformer.errors import InputError
from seqformer.video import open_dataset_video

HEIGHT, WIDTH, T = 96, 128, 5


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A dataset of videos 1 and 2; the frames of both are in reverse order of their names."""
    pictures(tmp_path / "clip", T)
    names = [f"clip/frame{t}.png" for t in reversed(range(T))]
    videos = [{"id": id_, "height": HEIGHT, "width": WIDTH, "file_names": names} for id_ in (1, 2)]
    path = tmp_path / "val.json"
    path.write_text(json.dumps({"categories": [{"id": 1, "name": "person"}], "videos": videos}))
    return path


def test_frames_are_in_the_order_of_the_dataset(tmp_path: Path, dataset: Path) -> None:
    video = open_dataset_video(dataset=dataset, images=tmp_path, video_id=2)
    assert (video.video.id, video.video.length, video.times, video.problem) == (2, T, None, None)
    assert video.dataset.names == {1: "person"}
    brightness = [int(picture[:, 60].mean()) for picture in video.pick([3, 0, T - 1])]
    assert brightness == [60 + 3 * t for t in (T - 1 - 3, T - 1, 0)]


def test_a_video_without_a_dataset(tmp_path: Path) -> None:
    video = open_dataset_video(encode(tmp_path / "a.mp4", T))
    assert (video.video.id, video.video.height, video.video.width) == (1, HEIGHT, WIDTH)
    assert (video.video.length, video.times, video.dataset) == (T, [t / 10 for t in range(T)], None)
    assert [picture.shape for picture in video.pick([T - 1])] == [(HEIGHT, WIDTH, 3)]
    assert open_dataset_video(tmp_path / "a.mp4", video_id=7).video.id == 7


def test_readable_frames_of_a_damaged_video(tmp_path: Path) -> None:
    video = open_dataset_video(cut(encode(tmp_path / "a.mp4", 40, noise=True), 0.5))
    assert 10 <= video.video.length <= 25
    assert video.problem.startswith(f"{video.video.length} of 40 frames")
    assert len(video.pick(range(video.video.length))) == video.video.length


def test_mismatches(tmp_path: Path, dataset: Path) -> None:
    other = encode(tmp_path / "a.mp4", 3)
    for arguments, message in (
        ({}, "no frames: give `inputs`, or `dataset`, `images` and `video_id`"),
        ({"dataset": dataset, "images": tmp_path}, "give `video_id`"),
        ({"dataset": dataset, "video_id": 1}, "no frames"),
        ({"dataset": dataset, "images": tmp_path, "video_id": 3}, "there is no video 3 in"),
        (
            {"inputs": other, "dataset": dataset, "video_id": 1},
            "there are 3 of 128x96 pixels, not 5",
        ),
    ):
        with pytest.raises(InputError, match=message):
            open_dataset_video(**arguments)


def test_a_stream_can_be_read_only_once(tmp_path: Path, address: str) -> None:
    encode(tmp_path / "a.ts", T)
    with pytest.raises(InputError, match="'a' can be read only once: give a video file or pictures"):
        open_dataset_video(f"{address}/a.ts")
