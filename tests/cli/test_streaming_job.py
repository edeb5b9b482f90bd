"""`seqformer predict --streaming`: its output when it finishes, fails, or is stopped at any time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from videos import encode, frames, pictures

from seqformer.cli import predict, streaming_job
from seqformer.errors import InputError
from seqformer.inference import video
from seqformer.video import VideoReader


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def count_frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def stop_after(monkeypatch, count: int, error: BaseException | int) -> None:
    """Makes the reader raise, or sends a signal to the process, after ``count`` frames of a file."""
    read = VideoReader.__iter__

    def iterate(self):
        for t, frame in enumerate(read(self)):
            if t == count and isinstance(error, BaseException):
                raise error
            if t == count:
                os.kill(os.getpid(), error)
            yield frame

    monkeypatch.setattr(VideoReader, "__iter__", iterate)


def test_same_results_as_the_whole_video(tmp_path, model, capsys):
    source = encode(tmp_path / "in.mp4", 9)
    clips = ["--opts", "MODEL.SeqFormer.CLIP_MATCHING", "True"]
    predict.main(["--input", str(source), "--output", str(tmp_path / "a/out.mp4"), *model, *clips])
    predict.main(["--input", str(source), "--output", str(tmp_path / "b/out.mp4"), "--streaming", *model])
    assert files(tmp_path / "b") == {"out.mp4", "out.json"}
    whole, streamed = (json.loads((tmp_path / name / "out.json").read_text()) for name in "ab")
    assert len(whole) > 0
    assert [r["category_id"] for r in whole] == [r["category_id"] for r in streamed]
    np.testing.assert_allclose([r["score"] for r in whole], [r["score"] for r in streamed], rtol=1e-5)
    with VideoReader(tmp_path / "b/out.mp4") as video:
        assert (video.length, video.fps, len(list(video))) == (9, 10, 9)
    data = (tmp_path / "b/out.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    counts = [line for line in capsys.readouterr().out.splitlines() if " instances with a score " in line]
    assert len(counts) == 2 and "9 frames" in counts[0]
    assert len({count.partition(" instances")[0] for count in counts}) == 1, "the same in both modes"


@pytest.mark.parametrize("streaming", [[], ["--streaming"]])
def test_results_without_a_mask_are_left_out(tmp_path, model, monkeypatch, capsys, streaming):
    encoded = video.encode_outputs

    def without_first(*args, **options):
        return [masks if n else [None] * len(masks) for n, masks in enumerate(encoded(*args, **options))]

    monkeypatch.setattr(video, "encode_outputs", without_first)
    source, output = encode(tmp_path / "in.mp4", 9), tmp_path / "out.mp4"
    command = ["--input", str(source), "--output", str(output), *streaming, *model, "--opts"]
    command += ["MODEL.SeqFormer.CLIP_MATCHING", "True", "MODEL.SeqFormer.KEEP_EMPTY"]
    found = {}
    for keep in ("True", "False"):
        predict.main([*command, keep])
        found[keep] = json.loads(output.with_suffix(".json").read_text())
    assert any(not any(r["segmentations"]) for r in found["True"])
    assert found["False"] == [r for r in found["True"] if any(r["segmentations"])]


def test_resuming_with_another_input(tmp_path, model, monkeypatch, capsys):
    first, second = (encode(tmp_path / f"{name}.mp4", 12) for name in "ab")
    command = ["--output", str(tmp_path / "out.mp4"), "--streaming", "--resume", *model, "--input"]
    with monkeypatch.context() as patch:
        stop_after(patch, 7, signal.SIGINT)
        with pytest.raises(SystemExit):
            predict.main([*command, str(first)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        predict.main([*command, str(second)])
    assert stop.value.code == 2
    assert "is from an interrupted run on another input" in capsys.readouterr().err
    predict.main([*command, str(first)])


def test_pictures_to_folder(tmp_path, model):
    clip = pictures(tmp_path / "clip", 5)
    predict.main(["--input", str(clip), "--output", str(tmp_path / "out"), "--streaming", *model])
    assert files(tmp_path / "out") == {f"{t:05d}.jpg" for t in range(5)} | {"results.json"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("output", ["out.mp4", "out"])
def test_interrupted_and_resumed(tmp_path, model, monkeypatch, capsys, number, output):
    source = encode(tmp_path / "in.mp4", 12)
    command = ["--input", str(source), *model]
    predict.main([*command, "--output", str(tmp_path / "a" / output), "--streaming"])
    with monkeypatch.context() as patch:
        stop_after(patch, 7, number)
        with pytest.raises(SystemExit) as stop:
            predict.main([*command, "--output", str(tmp_path / "b" / output), "--streaming"])
    assert stop.value.code == 130
    assert "interrupted after 6 frames" in capsys.readouterr().err
    video, results = tmp_path / "b/out.mp4", tmp_path / "b/out.json"
    if output == "out":
        results = tmp_path / "b/out/results.json"
        assert len(list((tmp_path / "b/out").glob("*.jpg"))) == 6
    else:
        assert count_frames(video) == 6
    assert {len(r["segmentations"]) for r in json.loads(results.read_text())} == {6}

    with pytest.raises(SystemExit):
        predict.main([*command, "--output", str(tmp_path / "b" / output), "--streaming"])
    assert "--resume" in capsys.readouterr().err, "an interrupted run is not overwritten"
    predict.main([*command, "--output", str(tmp_path / "b" / output), "--resume"])
    assert files(tmp_path / "b") == files(tmp_path / "a")
    whole = tmp_path / "a" / results.relative_to(tmp_path / "b")
    assert results.read_text() == whole.read_text()
    if output == "out.mp4":
        assert count_frames(video) == 12


def test_resuming_with_a_shorter_file(tmp_path, model, monkeypatch, capsys):
    command = ["--output", str(tmp_path / "out.mp4"), *model]
    with monkeypatch.context() as patch:
        stop_after(patch, 7, signal.SIGINT)
        with pytest.raises(SystemExit):
            predict.main(["--input", str(encode(tmp_path / "in.mp4", 12)), "--streaming", *command])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        predict.main(["--input", str(encode(tmp_path / "in.mp4", 3)), "--resume", *command])
    assert stop.value.code == 2
    assert "has 3 frames, but" in capsys.readouterr().err


def test_frames_before_a_failure_of_the_source_are_saved(tmp_path, model, monkeypatch, capsys):
    source = encode(tmp_path / "in.mp4", 12)
    stop_after(monkeypatch, 7, InputError("the cable is out"))
    with pytest.raises(SystemExit) as stop:
        predict.main(["--input", str(source), "--output", str(tmp_path / "out/o.mp4"), "--streaming", *model])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: the cable is out; the 7 frames before are in ") and error.count("\n") == 1
    assert files(tmp_path / "out") == {"o.mp4", "o.json"}
    assert count_frames(tmp_path / "out/o.mp4") == 7
    results = json.loads((tmp_path / "out/o.json").read_text())
    assert {len(r["segmentations"]) for r in results} == {7}


def test_a_frame_of_another_size(tmp_path, model, monkeypatch, capsys):
    source = encode(tmp_path / "in.mp4", 3)
    monkeypatch.setattr(VideoReader, "__iter__", lambda self: iter([*frames(5), frames(1, 64, 64)[0]]))
    with pytest.raises(SystemExit) as stop:
        predict.main(["--input", str(source), "--output", str(tmp_path / "out/o.mp4"), "--streaming", *model])
    assert stop.value.code == 2
    assert "frame 5 is 64x64, the first is 128x96" in capsys.readouterr().err
    assert count_frames(tmp_path / "out/o.mp4") == 5


def test_frames_before_a_full_disk_are_saved(tmp_path, model, monkeypatch, capsys):
    command = ["--input", str(encode(tmp_path / "in.mp4", 12)), "--output", str(tmp_path / "o/o.mp4"), *model]
    write = streaming_job.ResultSpool.write

    def fails(self, frame):
        if frame.index == 5:
            raise InputError("'frames.jsonl' cannot be written: No space left on device")
        write(self, frame)

    with monkeypatch.context() as patch:
        patch.setattr(streaming_job.ResultSpool, "write", fails)
        with pytest.raises(SystemExit) as stop:
            predict.main([*command, "--streaming"])
    assert stop.value.code == 2
    assert "No space left" in capsys.readouterr().err
    assert count_frames(tmp_path / "o/o.mp4") == 5
    assert {len(r["segmentations"]) for r in json.loads((tmp_path / "o/o.json").read_text())} == {5}


def test_a_folder_that_becomes_read_only_is_noticed_before_the_next_save(
    tmp_path, model, monkeypatch, capsys
):
    frames_read = []

    def access(folder, mode):
        assert (folder, mode) in ((output.parent, os.W_OK), (Path(f"{output}.unfinished"), os.W_OK))
        frames_read.append(folder)
        return len(frames_read) < 10

    monkeypatch.setattr(streaming_job, "_CHECKED_EVERY", 0.0)
    monkeypatch.setattr(streaming_job.os, "access", access)
    source, output = encode(tmp_path / "in.mp4", 12), tmp_path / "o/o.mp4"
    with pytest.raises(SystemExit) as stop:
        predict.main(["--input", str(source), "--output", str(output), "--streaming", *model])
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"error: '{output}.unfinished' cannot be written any more\n"
    assert 0 < count_frames(output) < 12


def test_state_that_cannot_be_saved_is_reported(tmp_path, model, monkeypatch, capsys):
    """On a full disk torch.save raises a RuntimeError."""

    def save(*_):
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed\nbacktrace")

    monkeypatch.setattr(streaming_job, "_SAVED_EVERY", 0.0)
    monkeypatch.setattr(streaming_job.torch, "save", save)
    source, output = encode(tmp_path / "in.mp4", 3), tmp_path / "o/o.mp4"
    with pytest.raises(SystemExit) as stop:
        predict.main(["--input", str(source), "--output", str(output), "--streaming", *model])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(
        f"error: cannot write '{output}.unfinished/state.pth': PytorchStreamWriter failed"
    )
    assert error.count("\n") == 1


def test_a_video_that_cannot_be_read_leaves_nothing(tmp_path, model, monkeypatch, capsys):
    source = encode(tmp_path / "in.mp4", 3)
    stop_after(monkeypatch, 0, InputError("unreadable"))
    with pytest.raises(SystemExit) as stop:
        predict.main(["--input", str(source), "--output", str(tmp_path / "out/o.mp4"), "--streaming", *model])
    assert (stop.value.code, capsys.readouterr().err) == (2, "error: unreadable\n")
    assert files(tmp_path / "out") == set()


@pytest.mark.slow
def test_killed_and_resumed(tmp_path, model):
    """After SIGKILL the final frames are valid, and a resumed run ends like an uninterrupted one."""
    source = encode(tmp_path / "in.mp4", 60)
    command = ["--input", str(source), *model]
    program = (
        "import sys; from seqformer.cli import predict, streaming_job; streaming_job._SAVED_EVERY = 0.1; "
        "streaming_job._SHARE_OF_SAVING = 1.0; predict.main(sys.argv[1:])"
    )
    output = tmp_path / "b" / "out.mp4"
    process = subprocess.Popen(
        [sys.executable, "-c", program, *command, "--output", str(output), "--streaming"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    unfinished = tmp_path / "b" / "out.mp4.unfinished"
    deadline = time.monotonic() + 240
    while (
        not (unfinished / "state.pth").exists()
        or len((unfinished / "frames.jsonl").read_text().splitlines()) < 15
        or not json.loads(output.with_suffix(".json").read_text())  # empty until a save that has results
    ):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert json.loads(output.with_suffix(".json").read_text())
    predict.main([*command, "--output", str(output), "--resume"])
    predict.main([*command, "--output", str(tmp_path / "a" / "out.mp4"), "--streaming"])
    assert files(tmp_path / "b") == {"out.mp4", "out.json"}
    assert output.with_suffix(".json").read_text() == (tmp_path / "a" / "out.json").read_text()
    assert count_frames(output) == 60
