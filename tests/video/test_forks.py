"""A process that is forked while a video is open can collect garbage."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from videos import encode

PROGRAM = """
import gc, json, os, signal, sys
from pathlib import Path
from seqformer.video import LiveReader, VideoReader, VideoWriter

def opened(case, source, output):
    reader = LiveReader(Path(source).as_uri()) if case == "live" else VideoReader(source)
    frames = iter(reader)
    kept = [reader, frames, next(frames)]
    if case == "closed":
        reader.close()
    if case == "whole":
        kept += frames
    if case in ("writer", "written"):
        writer = VideoWriter(output, reader.height, reader.width, reader.fps).__enter__()
        writer.write(next(frames))
        if case == "written":
            writer.__exit__(None, None, None)
        kept.append(writer)
    kept.append(kept)  # so that only the garbage collector frees it
    return kept

codes = {}
for case in ("open", "closed", "whole", "live", "writer", "written"):
    kept = opened(case, *sys.argv[1:])
    child = os.fork()
    if not child:
        signal.alarm(20)  # kills the process if it hangs
        del kept
        gc.collect()
        os._exit(0)
    codes[case] = os.waitpid(child, 0)[1]
    del kept
    gc.collect()
print(json.dumps(codes))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_a_forked_process_does_not_wait_for_threads(tmp_path: Path) -> None:
    source = encode(tmp_path / "in.mp4", 30)
    command = [sys.executable, "-c", PROGRAM, str(source), str(tmp_path / "out.mp4")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    codes = json.loads(done.stdout)
    assert len(codes) == 6 and set(codes.values()) == {0}, "14: it hung, 11: it crashed"
