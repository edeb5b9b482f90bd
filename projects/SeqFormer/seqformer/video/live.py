"""Reads cameras and network streams, which can be read only once."""

from __future__ import annotations

import logging
import re
import sys
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
_TIMEOUT = 20.0  # seconds

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
        timeout: seconds without data after which reading fails.

    Raises:
        InputError: if the stream cannot be opened or has no frames; while reading, if it fails or the size of
            frames changes.

    Examples:
        >>> with LiveReader("camera:0") as camera:
        ...     for frame in camera:
        ...         print(frame.shape)
    """

    def __init__(self, address: str, timeout: float = _TIMEOUT):
        self.address = address
        self.name = _name(address)
        self.paths: list[Path] = []
        self.length: int | None = None
        self.sound = None
        self.time = FrameTime(Fraction(0), Fraction(0))
        self._count = 0
        self._damaged = 0
        self._container = _open(address, timeout)
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
            try:
                packet = next(packets)
            except (StopIteration, av.error.EOFError):
                return
            except av.error.FFmpegError as error:
                raise InputError(f"'{self.address}' stopped: {error.strerror}") from error
            try:
                frames = packet.decode()
            except av.error.EOFError:
                return
            except av.error.FFmpegError:
                self._damaged += 1
            else:
                yield from frames


def _open(address: str, timeout: float) -> InputContainer:
    camera = _CAMERA.fullmatch(address)
    options = {"rtsp_transport": "tcp"} if address.lower().startswith("rtsp") else {}
    try:
        if not camera:
            return av.open(address, options=options, timeout=timeout)
        if sys.platform == "darwin":
            return av.open(camera[1], format="avfoundation", options={"framerate": "30"})
        return av.open(f"/dev/video{camera[1]}", format="v4l2", timeout=timeout)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"'{address}' cannot be opened: {reason}") from error


def _name(address: str) -> str:
    """Returns a file name for the results of an address."""
    if camera := _CAMERA.fullmatch(address):
        return f"camera{camera[1]}"
    parts = urlsplit(address)
    return PurePosixPath(parts.path).stem or (parts.hostname or "stream")
