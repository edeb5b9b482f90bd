"""Tracking a video from Python, as a whole and frame by frame, without printed output."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from videos import encode

from seqformer.cli.streaming_job import StreamingJob
from seqformer.cli.whole_video import WrittenVideo, track_video
from seqformer.errors import InputError
from seqformer.inference import VideoPredictor, model_config
from seqformer.video import VideoReader, VideoWriter, open_source

CLASSES = {"class_names": ["cat", "dog"], "category_ids": [7, 9]}


@pytest.fixture
def predictor(model: list[str]) -> VideoPredictor:
    return VideoPredictor(model_config(model[1], model[3], []))


def check(written: WrittenVideo, output: Path, length: int) -> None:
    assert (written.output, written.results) == (output, output.with_suffix(".json"))
    assert (written.length, written.problem) == (length, None)
    with VideoReader(output) as video:
        assert video.length == length
    results = json.loads(written.results.read_text())
    assert {result["category_id"] for result in results} <= {7, 9}
    assert {result["video_id"] for result in results} == {3}
    assert written.num_instances > 0


def test_a_whole_video(tmp_path: Path, predictor: VideoPredictor, capsys) -> None:
    told: list[tuple[int | None, str]] = []

    def progress(frames: Iterable, total: int | None, what: str) -> Iterable:
        told.append((total, what))
        return frames

    page = tmp_path / "page.html"
    with open_source(encode(tmp_path / "in.mp4", 4)) as source:
        written = track_video(
            lambda: predictor,
            source,
            tmp_path / "out.mp4",
            **CLASSES,
            video_id=3,
            threshold=0.0,
            page=page,
            progress=progress,
        )
    check(written, tmp_path / "out.mp4", 4)
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert told == [(4, "tracking"), (4, "drawing"), (4, "page")]
    assert capsys.readouterr() == ("", "")


def test_frame_by_frame(
    tmp_path: Path, predictor: VideoPredictor, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = []
    with open_source(encode(tmp_path / "in.mp4", 4)) as source:
        job = StreamingJob(
            tmp_path / "out.mp4", source, **CLASSES, video_id=3, threshold=0.0, show=shown.append
        )
        written = job.run(predictor.stream(clip_matching=True))
    check(written, tmp_path / "out.mp4", 4)
    assert len(shown) == 4
    assert capsys.readouterr() == ("", "")


def test_errors_name_arguments(tmp_path: Path, predictor: VideoPredictor) -> None:
    (tmp_path / "out.json").mkdir()
    unfinished = tmp_path / "other.mp4.unfinished"
    unfinished.mkdir()
    (unfinished / "state.pth").touch()
    with open_source(encode(tmp_path / "in.mp4", 2)) as source:
        with pytest.raises(InputError, match="choose another `output`"):
            track_video(lambda: predictor, source, tmp_path / "out.mp4", **CLASSES)
        with pytest.raises(InputError, match="continue it with `resume`"):
            StreamingJob(tmp_path / "other.mp4", source, **CLASSES)
        job = StreamingJob(tmp_path / "other.mp4", source, **CLASSES, resume=True)
        with pytest.raises(InputError, match="start without `resume`"):
            job.run(predictor.stream(clip_matching=True))


def test_results_are_kept_if_the_video_cannot_be_written(
    tmp_path: Path, predictor: VideoPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(writer: VideoWriter, *_: object) -> None:
        raise InputError(f"'{writer.path}' cannot be written: No space left on device")

    monkeypatch.setattr(VideoWriter, "write", full)
    with (
        open_source(encode(tmp_path / "in.mp4", 4)) as source,
        pytest.raises(InputError, match=r"No space left on device; the results are in '.*out.json'"),
    ):
        track_video(lambda: predictor, source, tmp_path / "out.mp4", **CLASSES)
    assert json.loads((tmp_path / "out.json").read_text())
    assert not (tmp_path / "out.mp4").exists()
