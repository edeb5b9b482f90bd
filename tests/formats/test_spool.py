"""Final frames on disk: round trip, killed processes and full disks."""

from __future__ import annotations

from pathlib import Path

import pytest

from seqformer.errors import InputError
from seqformer.formats.spool import ResultSpool, read_spool
from seqformer.structures import EndedInstance, FrameInstance, FrameResult

RLE = {"size": [2, 2], "counts": "04"}
FRAMES = [
    FrameResult(0, [FrameInstance(0, 1, 0.5, RLE), FrameInstance(1, 0, 0.01, RLE)], []),
    FrameResult(1, [FrameInstance(0, 0, 0.6, RLE)], [EndedInstance(1, [])]),
    FrameResult(2, [FrameInstance(2, 0, 0.7, RLE)], [EndedInstance(0, [(0, 0.6), (1, 0.4)])]),
]


def spooled(path: Path) -> Path:
    with ResultSpool(path) as spool:
        for frame in FRAMES:
            spool.write(frame)
    return path


def test_round_trip(tmp_path: Path) -> None:
    assert list(read_spool(spooled(tmp_path / "frames"))) == FRAMES


def test_a_killed_process_leaves_whole_frames(tmp_path: Path) -> None:
    path = spooled(tmp_path / "frames")
    path.write_bytes(path.read_bytes()[:-9])
    assert list(read_spool(path)) == FRAMES[:2]


def test_continues_after_the_kept_frames(tmp_path: Path) -> None:
    path = spooled(tmp_path / "frames")
    with ResultSpool(path, keep=2) as spool:
        assert list(read_spool(path)) == FRAMES[:2]
        spool.write(FRAMES[2])
    assert list(read_spool(path)) == FRAMES
    with pytest.raises(InputError, match="fewer than 4"):
        ResultSpool(path, keep=4)


def test_bad_files(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no frames\n")
    with pytest.raises(InputError, match="not a file of final frames"):
        list(read_spool(tmp_path / "text"))
    with pytest.raises(InputError, match="cannot be written"):
        ResultSpool(tmp_path / "text" / "frames")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_full_disk_is_reported(tmp_path: Path) -> None:
    with ResultSpool(tmp_path / "frames") as spool:
        whole, spool._file = spool._file, open("/dev/full", "a")  # noqa: SIM115  closing it fails as well
        with pytest.raises(InputError, match="No space left"):
            spool.write(FRAMES[0])
        spool._file = whole
