"""Live streams, over HTTP from this process, and their errors."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from videos import encode, frames

from seqformer.errors import InputError
from seqformer.video import LiveReader, VideoReader, is_address, open_source


def two_sizes(path: Path) -> Path:
    """A transport stream that changes size after 6 frames."""
    parts = [encode(path.with_name(f"{w}.ts"), 6, width=w, codec="mpeg2video") for w in (128, 160)]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def test_frames_over_http(tmp_path, address):
    encode(tmp_path / "a.ts", 9)
    with open_source(f"{address}/a.ts") as stream:
        assert isinstance(stream, LiveReader)
        assert (stream.name, stream.paths, stream.height, stream.width) == ("a", [], 96, 128)
        found = list(stream)
        assert stream.problem is None
    assert len(found) == 9
    for frame, wanted in zip(found, frames(9), strict=True):
        assert np.abs(frame.astype(int) - wanted).mean() < 3


def test_a_stream_that_stops(tmp_path, address):
    encode(tmp_path / "stops.ts", 60, noise=True)
    found = []
    with LiveReader(f"{address}/stops.ts", timeout=2) as stream:
        with pytest.raises(InputError, match="stops.ts' stopped: "):
            found.extend(stream)
        assert len(found) < 60


def test_damaged_packets_are_skipped(tmp_path, address):
    path = encode(tmp_path / "a.ts", 40, noise=True)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) * 6 // 10] = random.randbytes(len(data) * 6 // 10 - len(data) // 2)
    path.write_bytes(data)
    with LiveReader(f"{address}/a.ts") as stream:
        assert 20 <= len(list(stream)) <= 40


@pytest.mark.parametrize("reader", [LiveReader, VideoReader])
def test_frames_that_change_size(tmp_path, address, reader):
    path = two_sizes(tmp_path / "a.ts")
    found = []
    with reader(f"{address}/a.ts" if reader is LiveReader else path) as video:
        with pytest.raises(InputError, match=r"frame \d+ of .*a.ts' is 160x96, the first is 128x96"):
            found.extend(video)
        assert 4 <= len(found) <= 6


@pytest.mark.parametrize("name", ["camera:9", "http://127.0.0.1:1/none", "rtsp://127.0.0.1:1/none"])
def test_addresses_that_cannot_be_opened(name):
    with pytest.raises(InputError, match=f"'{name}' cannot be opened: "):
        open_source(name)


def test_streams_without_video(tmp_path, address):
    (tmp_path / "empty.ts").touch()
    (tmp_path / "text.ts").write_text("no video")
    for name in ("empty.ts", "text.ts", "missing.ts"):
        with pytest.raises(InputError, match=name):
            LiveReader(f"{address}/{name}")


def test_addresses():
    assert [is_address(n) for n in ("camera:0", "rtsp://h/s", "HTTP://h/a.mp4")] == [True] * 3
    assert [is_address(n) for n in ("camera:", "a.mp4", "videos/*.mp4", "C:/a.mp4", "a:b")] == [False] * 5
