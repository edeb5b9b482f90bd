"""Reads cameras and network streams, which can be read only once."""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from seqformer.errors import InputError
from seqformer.video.display import FrameClock, FrameConverter, FrameTime, frame_rate, shown_stream
from seqformer.video.forks import Opened

__all__ = ["LiveReader", "is_address"]

_CAMERA = re.compile(r"camera:(\d+)")
_ADDRESS = re.compile(r"[a-z][a-z0-9+]+://.", re.IGNORECASE)
_RTSP = re.compile(r"rtsps?://", re.IGNORECASE)
_HLS = re.compile(r"\.m3u8(\?|$)", re.IGNORECASE)
_TIMEOUT = 10.0  # seconds
_HLS_TIMEOUT = 20.0  # which has pauses as long as its segments
_MISSING = 1.0  # seconds at the end of a stream that may be missing

_logger = logging.getLogger(__name__)


def is_address(name: str) -> bool:
    """Returns whether a name is a camera ("camera:0") or an address ("rtsp://host/stream"), not a file."""
    return bool(_CAMERA.fullmatch(name) or _ADDRESS.match(name))


class LiveReader:
    """Reads frames from a camera, or from an address that FFmpeg supports (RTSP, HTTP, ...).

    Frames are as ffplay shows them; see :mod:`seqformer.video.display`. They can be iterated once. Parts that
    cannot be decoded are skipped. Sound is not read.

    Args:
        address: "camera:" and a number, or an address.
        timeout: seconds without data after which reading fails; by default 20 for HLS, 10 for others.

    Raises:
        InputError: if the stream cannot be opened or has no frames; while reading, if it fails, if its server
            closes it before its declared end (a live RTSP stream has none), or the size of frames changes.

    Examples:
        >>> with LiveReader("camera:0") as camera:
        ...     for frame in camera:
        ...         print(frame.shape)
    """

    def __init__(self, address: str, timeout: float | None = None):
        self.address = address
        self._timeout = timeout or (_HLS_TIMEOUT if _HLS.search(address) else _TIMEOUT)
        self.name = _name(address)
        self.paths: list[Path] = []
        self.length: int | None = None
        self.sound = None
        self.time = FrameTime(Fraction(0), Fraction(0))
        self._count = 0
        self._damaged = 0
        self._container = _open(address, self._timeout)
        try:
            stream = shown_stream(self._container)
            if stream is None:
                raise InputError(f"'{address}' has no video")
            self._opened = Opened(self._container, stream)
            self.fps = frame_rate(stream)
            self._clock = FrameClock(self._container, stream, self.fps)
            self._frames = self._decode(stream)
            self._first = next(self._frames, None)
            if self._first is None:
                raise InputError(f"'{address}' has no frames")
            self._converter = FrameConverter(stream, self._first, address)
        except InputError:
            self.close()
            raise
        if self._container.streams.audio:
            _logger.warning("the sound of '%s' is not saved", address)
        self.height, self.width = self._converter.height, self._converter.width

    def __enter__(self) -> LiveReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the stream."""
        self._container.close()

    def __iter__(self) -> Iterator[np.ndarray]:
        frame, self._first = self._first, None
        while frame is not None:
            image = self._converter(frame, self._count)
            self._count += 1
            self.time = self._clock(frame)
            yield image
            frame = next(self._frames, None)

    @property
    def problem(self) -> str | None:
        if not self._damaged:
            return None
        return f"{self._damaged} damaged parts of '{self.address}' were skipped"

    def _decode(self, stream: VideoStream) -> Iterator[av.VideoFrame]:
        packets = self._container.demux(stream)
        while True:
            asked = time.monotonic()
            try:
                packet = next(packets)
            except (StopIteration, av.error.EOFError):
                if self._ends_early():
                    raise InputError(f"'{self.address}' stopped: its server ended it") from None
                return
            except av.error.FFmpegError as error:
                raise InputError(f"'{self.address}' stopped: {_reason(error, self._timeout)}") from error
            # FFmpeg may answer the first timeout with the packet that it has, and wait again.
            is_late = time.monotonic() - asked >= self._timeout
            try:
                frames = packet.decode()
            except av.error.EOFError:
                return
            except av.error.FFmpegError:
                self._damaged += 1
            else:
                yield from frames
            if is_late:
                raise InputError(f"'{self.address}' stopped: no data for {self._timeout:g} seconds")

    def _ends_early(self) -> bool:
        """Whether a stream has ended before its declared end. FFmpeg tells for protocols other than RTSP."""
        if not _RTSP.match(self.address):
            return False
        length = self._container.duration
        return length is None or float(sum(self.time)) < length / av.time_base - _MISSING


def _open(address: str, timeout: float) -> InputContainer:
    camera = _CAMERA.fullmatch(address)
    start = time.monotonic()
    options = {"rtsp_transport": "tcp"} if address.lower().startswith("rtsp") else {}
    try:
        if not camera:
            return av.open(address, options=options, timeout=timeout)
        if sys.platform == "darwin":
            return av.open(camera[1], format="avfoundation", options={"framerate": "30"})
        return av.open(f"/dev/video{camera[1]}", format="v4l2", timeout=timeout)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = _reason(error, timeout)
        if time.monotonic() - start >= timeout:  # FFmpeg gives various errors
            reason = f"no answer for {timeout:g} seconds"
        raise InputError(f"'{address}' cannot be opened: {reason}") from error


def _reason(error: Exception, timeout: float) -> object:
    if isinstance(error, av.error.ExitError | av.error.TimeoutError):
        return f"no data for {timeout:g} seconds"
    return getattr(error, "strerror", None) or error


def _name(address: str) -> str:
    """Returns a file name for the results of an address."""
    if camera := _CAMERA.fullmatch(address):
        return f"camera{camera[1]}"
    parts = urlsplit(address)
    return PurePosixPath(parts.path).stem or (parts.hostname or "stream")
