"""Several videos: output files, failures, restarts, and several processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from videos import encode, pictures

from seqformer.cli import predict, whole_video
from seqformer.cli.many_videos import several_videos, targets_of
from seqformer.errors import InputError


@pytest.fixture
def videos(tmp_path) -> str:
    """A pattern of three files, the second of which is not a video."""
    (tmp_path / "in").mkdir()
    for name in ("a.mp4", "c.mp4"):
        encode(tmp_path / "in" / name, 4)
    (tmp_path / "in" / "b.mp4").write_text("no video")
    return str(tmp_path / "in" / "*.mp4")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("mode", [[], ["--streaming"]])
def test_a_broken_video_does_not_stop_the_others(tmp_path, videos, model, capsys, mode):
    command = ["--input", videos, "--output", str(tmp_path / "out"), *mode, *model]
    with pytest.raises(SystemExit) as stop:
        predict.main(command)
    assert stop.value.code == 1
    broken = tmp_path / "in" / "b.mp4"
    told = capsys.readouterr().err.splitlines()[-2:]
    assert told[0] == "1 of 3 videos failed:"
    assert told[1].startswith(f"  {broken}: '{broken}' is not a video")
    assert names(tmp_path / "out") == ["a.json", "a.mp4", "c.json", "c.mp4"]

    # A restart does what is missing, and no more.
    encode(tmp_path / "in" / "b.mp4", 4)
    (tmp_path / "out" / "c.json").unlink()
    before = (tmp_path / "out" / "a.mp4").stat().st_mtime_ns
    predict.main(command)
    assert names(tmp_path / "out") == ["a.json", "a.mp4", "b.json", "b.mp4", "c.json", "c.mp4"]
    assert (tmp_path / "out" / "a.mp4").stat().st_mtime_ns == before
    assert capsys.readouterr().out.count("skipped") == 1
    results = json.loads((tmp_path / "out" / "b.json").read_text())
    assert {len(result["segmentations"]) for result in results} == {4}


def test_a_finished_video_of_another_folder_is_not_taken_for_this_one(tmp_path, videos, model, capsys):
    (tmp_path / "other").mkdir()
    other = [encode(tmp_path / "other" / name, 4) for name in ("a.mp4", "d.mp4")]
    command = ["--output", str(tmp_path / "out"), *model, "--input"]
    predict.main([*command, *map(str, other)])
    before = (tmp_path / "out" / "a.mp4").read_bytes()
    with pytest.raises(SystemExit):
        predict.main([*command, str(tmp_path / "in" / "a.mp4"), str(tmp_path / "in" / "c.mp4")])
    told = capsys.readouterr().err
    assert "1 of 2 videos failed" in told and "a.mp4' exists and was not made from this input" in told
    assert (tmp_path / "out" / "a.mp4").read_bytes() == before


def test_an_unexpected_error_fails_only_its_video(tmp_path, videos, model, monkeypatch, capsys):
    draw = whole_video.draw_tracklets

    def breaks(frames, *arguments):
        if len(calls) == 0:
            calls.append(frames)
            raise RuntimeError("out of memory")
        return draw(frames, *arguments)

    calls = []
    monkeypatch.setattr(whole_video, "draw_tracklets", breaks)
    with pytest.raises(SystemExit) as stop:
        predict.main(["--input", videos, "--output", str(tmp_path / "out"), *model])
    assert stop.value.code == 1
    assert f"  {tmp_path / 'in/a.mp4'}: RuntimeError: out of memory" in capsys.readouterr().err
    assert names(tmp_path / "out") == ["c.json", "c.mp4"]


def test_several_videos(tmp_path):
    folder = pictures(tmp_path / "clip", 2)
    for name in ("a.mp4", "b.mkv"):
        (tmp_path / name).touch()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mkv"
    assert several_videos([str(a), str(b)]) == [a, b]
    assert several_videos([str(tmp_path / "*.m*")]) == [a, b]
    assert several_videos([str(tmp_path / "*.mp4")]) == [a], "a pattern means several, even if it finds one"
    for one in ([str(a)], [str(folder)], [str(folder / "*.png")], [str(a), str(folder / "frame0.png")], []):
        assert several_videos(one) == []


def test_targets(tmp_path):
    a, other = tmp_path / "a.mp4", tmp_path / "x" / "a.mkv"
    a.touch()
    assert targets_of([a], tmp_path / "out") == [(a, tmp_path / "out" / "a.mp4")]
    with pytest.raises(InputError, match="have the same output"):
        targets_of([a, other], tmp_path / "out")
    with pytest.raises(InputError, match="contains the input"):
        targets_of([a], tmp_path)
    with pytest.raises(InputError, match="must be a folder"):
        targets_of([a, other], tmp_path / "out.mp4")


@pytest.mark.slow
def test_two_processes(tmp_path, videos, model, repository):
    """Each video is tracked by one process, and both report the failure of one video."""
    command = ["--input", videos, "--output", str(tmp_path / "out"), *model]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    process = subprocess.run(
        [*launcher, str(repository / "demo/demo.py"), *command],
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.returncode != 0
    assert process.stderr.count("1 of 3 videos failed:") == 1, process.stderr
    assert process.stdout.count("4 frames") == 2
    assert names(tmp_path / "out") == ["a.json", "a.mp4", "c.json", "c.mp4"]
