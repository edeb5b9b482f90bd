"""Inference in several processes writes the same files as in one."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from seqformer.data.toy import make_toy_dataset

PROGRAM = Path(__file__).with_name("inference_program.py")
TIMEOUT = 300  # seconds; a run needs only a few


def run(json_file: Path, frames: Path, output: Path, processes: int) -> list[str]:
    """Runs the program and returns its output."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), str(PROGRAM)]
    done = subprocess.run(
        [*command, str(json_file), str(frames), str(output)], capture_output=True, text=True, timeout=TIMEOUT
    )
    assert done.returncode == 0, done.stderr
    return sorted(line for line in done.stdout.splitlines() if line.startswith("process"))


@pytest.mark.slow
def test_two_processes_write_what_one_writes(tmp_path: Path) -> None:
    """Three videos, so that the processes have two and one; with annotations and without."""
    json_file, _, frames = make_toy_dataset(tmp_path, num_train=3, num_val=0, length=2, size=(48, 64))
    assert run(json_file, frames, tmp_path / "one", 1) == ["process 0 of 1: ['segm']"]
    said = run(json_file, frames, tmp_path / "two", 2)
    assert said == ["process 0 of 2: ['segm']", "process 1 of 2: []"]
    one, two = ((tmp_path / folder / "results.json").read_bytes() for folder in ("one", "two"))
    assert {result["video_id"] for result in json.loads(one)} == {1, 2, 3}
    assert one == two
    assert [path.name for path in (tmp_path / "two").iterdir()] == ["results.json"]

    data = json.loads(json_file.read_text())
    del data["annotations"]
    json_file.write_text(json.dumps(data))
    said = run(json_file, frames, tmp_path / "unannotated", 2)
    assert said == ["process 0 of 2: []", "process 1 of 2: []"]
    with zipfile.ZipFile(tmp_path / "unannotated" / "results.zip") as submission:
        assert submission.namelist() == ["results.json"]
        assert submission.read("results.json") == one
