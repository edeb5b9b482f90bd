"""Real broken inputs and full disks: one clear line, and final frames are saved in valid files."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import av
import pytest
from rtsp import serve_rtsp
from videos import encode

from seqformer.cli import predict
from seqformer.video import live


def check_files(folder: Path, at_least: int) -> int:
    """Checks that video and JSON are the only files and have the same frames; returns their number."""
    with av.open(str(folder / "o.mp4")) as container:
        count = sum(1 for _ in container.decode(video=0))
    results = json.loads((folder / "o.json").read_text())
    assert {len(result["segmentations"]) for result in results} == {count}
    assert sorted(path.name for path in folder.iterdir()) == ["o.json", "o.mp4"]
    assert count >= at_least
    return count


def error_of(capsys, arguments: list[str]) -> str:
    """Runs a failing command, and returns its one line of error."""
    with pytest.raises(SystemExit) as stop:
        predict.main(arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.startswith("error: ") and error.count("\n") == 1, error
    return error


def test_a_video_that_changes_size(tmp_path, model, capsys) -> None:
    parts = [encode(tmp_path / f"{width}.ts", 8, width=width, codec="mpeg2video") for width in (128, 160)]
    (tmp_path / "in.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    command = ["--input", str(tmp_path / "in.ts"), *model]
    error = error_of(capsys, [*command, "--streaming", "--output", str(tmp_path / "a/o.mp4")])
    count = check_files(tmp_path / "a", 6)
    assert f"frame {count} of" in error and "is 160x96, the first is 128x96" in error
    assert f"the {count} frames before are in " in error
    assert "is 160x96" in error_of(capsys, [*command, "--output", str(tmp_path / "b/o.mp4")])
    assert not list((tmp_path / "b").iterdir()), "without --streaming nothing is final before the end"


@pytest.mark.parametrize(("precision", "reason"), [("fp16", "fp16 needs a GPU"), ("fp8", "must be one of")])
def test_a_precision_that_cannot_be_used(tmp_path, model, capsys, precision, reason) -> None:
    arguments = [
        "--input",
        str(encode(tmp_path / "in.mp4", 4)),
        "--output",
        str(tmp_path / "out/o.mp4"),
        *model,
    ]
    error = error_of(capsys, [*arguments, "--opts", "MODEL.SeqFormer.PRECISION", precision])
    assert f"MODEL.SeqFormer.PRECISION {reason}" in error
    assert not list((tmp_path / "out").iterdir())


def test_a_stream_that_stalls(tmp_path, model, address, monkeypatch, capsys) -> None:
    encode(tmp_path / "stops.ts", 40, noise=True)
    monkeypatch.setattr(live, "_TIMEOUT", 1)
    output = str(tmp_path / "out/o.mp4")
    error = error_of(capsys, ["--input", f"{address}/stops.ts", "--output", output, *model])
    count = check_files(tmp_path / "out", 5)
    assert count < 40
    assert f"stops.ts' stopped: no data for 1 seconds; the {count} frames before are in '{output}'" in error


@pytest.mark.parametrize(
    ("then", "reason"), [("close", "its server ended it"), ("silence", "no data for 1 seconds")]
)
def test_an_rtsp_server_that_goes_away(tmp_path, model, monkeypatch, capsys, then, reason) -> None:
    monkeypatch.setattr(live, "_TIMEOUT", 1)
    output = str(tmp_path / "out/o.mp4")
    with serve_rtsp(encode(tmp_path / "a.ts", 20), then=then) as address:
        error = error_of(capsys, ["--streaming", address, "--output", output, *model])
    count = check_files(tmp_path / "out", 15)
    assert error == (f"error: '{address}' stopped: {reason}; the {count} frames before are in '{output}'\n")


@pytest.mark.parametrize("mode", [[], ["--streaming"]])
def test_corrupt_packets_in_the_middle(tmp_path, model, capsys, mode) -> None:
    path = encode(tmp_path / "in.mp4", 30, noise=True)
    data = bytearray(path.read_bytes())
    middle = slice(len(data) // 2, len(data) * 6 // 10)
    data[middle] = random.randbytes(middle.stop - middle.start)
    path.write_bytes(data)
    predict.main(["--input", str(path), "--output", str(tmp_path / "out/o.mp4"), *mode, *model])
    count = check_files(tmp_path / "out", 10)
    assert count < 30
    assert f"warning: {count} of 30 frames" in capsys.readouterr().err


@pytest.mark.parametrize("mode", [[], ["--streaming"]])
def test_a_video_shorter_than_a_clip(tmp_path, model, mode) -> None:
    source = encode(tmp_path / "in.mp4", 2)
    clips = ["--opts", "MODEL.SeqFormer.CLIP_MATCHING", "True"]
    predict.main(["--input", str(source), "--output", str(tmp_path / "out/o.mp4"), *mode, *model, *clips])
    assert check_files(tmp_path / "out", 2) == 2


@pytest.mark.parametrize("mode", [[], ["--streaming"]])
def test_a_video_without_frames(tmp_path, model, capsys, mode) -> None:
    (tmp_path / "empty.mp4").touch()
    with av.open(str(tmp_path / "none.mp4"), "w") as container:  # a header without a frame
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 96, 128, "yuv420p"
        container.mux(stream.encode(None))
    for name in ("empty", "none"):
        source = tmp_path / f"{name}.mp4"
        error = error_of(
            capsys, ["--input", str(source), "--output", str(tmp_path / "out/o.mp4"), *mode, *model]
        )
        assert f"{name}.mp4" in error
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("mode", "kept"), [([], 0), (["--streaming"], 3)])
def test_a_disk_that_fills_up(tmp_path, model, mode, kept: int) -> None:
    """The size of files is limited to 60 kB, as if the disk were full."""
    source = encode(tmp_path / "in.mp4", 40, noise=True)
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)); "
        "from seqformer.cli import predict; predict.main(sys.argv[1:])"
    )
    command = ["--input", str(source), "--output", str(tmp_path / "out/o.mp4"), *mode, *model]
    process = subprocess.run(
        [sys.executable, "-c", program, *command],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.returncode == 2, process.stderr
    error = [line for line in process.stderr.splitlines() if line.startswith("error: ")]
    assert len(error) == 1 and "cannot be written: File too large" in error[0], process.stderr
    assert "Traceback" not in process.stderr
    if not kept:
        assert not list((tmp_path / "out").iterdir())
        return
    with av.open(str(tmp_path / "out/o.mp4")) as container:
        count = sum(1 for _ in container.decode(video=0))
    results = json.loads((tmp_path / "out/o.json").read_text())
    (length,) = {len(result["segmentations"]) for result in results}
    assert length >= count >= kept
