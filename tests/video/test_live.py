"""Live streams, over HTTP and RTSP from this process, and their errors."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import pytest
from rtsp import serve_rtsp
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


@pytest.mark.parametrize("name", ["stops.ts", "stops.mkv"])
def test_an_http_stream_that_stalls(tmp_path, address, name):
    encode(tmp_path / name, 60, noise=True)
    found = []
    with LiveReader(f"{address}/{name}", timeout=1) as stream:
        start = time.monotonic()
        with pytest.raises(InputError, match=f"{name}' stopped: no data for 1 seconds$"):
            found.extend(stream)
        assert time.monotonic() - start < 5
        assert 20 <= len(found) < 60


@pytest.mark.parametrize(
    ("then", "reason"), [("close", "its server ended it"), ("silence", "no data for 1 seconds")]
)
def test_a_live_rtsp_stream_that_stops(tmp_path, then, reason):
    path = encode(tmp_path / "a.ts", 30)
    found = []
    with serve_rtsp(path, then=then) as address, LiveReader(address, timeout=1) as stream:
        start = time.monotonic()
        with pytest.raises(InputError, match=f"'{address}' stopped: {reason}$"):
            found.extend(stream)
        assert time.monotonic() - start < 2  # not two times the timeout
        assert len(found) >= 25


@pytest.mark.parametrize("then", ["close", "bye"])
def test_a_recording_over_rtsp_ends(tmp_path, then):
    path = encode(tmp_path / "a.ts", 30)
    with serve_rtsp(path, then=then, seconds=3) as address, LiveReader(address) as stream:
        assert len(list(stream)) >= 25
    early = pytest.raises(InputError, match="stopped: its server ended it")
    with serve_rtsp(path, then=then, seconds=6) as address, LiveReader(address) as stream, early:
        list(stream)


@pytest.mark.parametrize("request_", ["OPTIONS", "DESCRIBE", "SETUP", "PLAY"])
def test_an_rtsp_server_that_does_not_answer(tmp_path, request_):
    path = encode(tmp_path / "a.ts", 3)
    refused = pytest.raises(InputError, match="stream' cannot be opened: no answer for 1 seconds")
    with serve_rtsp(path, silent_at=request_) as address, refused:
        LiveReader(address, timeout=1)


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
