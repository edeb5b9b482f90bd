"""Reads cameras and network streams, which can be read only once."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import VideoReformatter

from seqformer.errors import InputError

__all__ = ["LiveReader", "is_address"]

_CAMERA = re.compile(r"camera:(\d+)")
_ADDRESS = re.compile(r"[a-z][a-z0-9+]+://.", re.IGNORECASE)
_FALLBACK_FPS = Fraction(25)
_TIMEOUT = 20.0  # seconds


def is_address(name: str) -> bool:
    """Returns whether a name is a camera ("camera:0") or an address ("rtsp://host/stream"), not a file."""
    return bool(_CAMERA.fullmatch(name) or _ADDRESS.match(name))


class LiveReader:
    """Reads frames from a camera, or from an address that FFmpeg supports (RTSP, HTTP, ...).

    Frames can be iterated once. Parts that cannot be decoded are skipped.

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
        self._count = 0
        self._damaged = 0
        self._reformatter = VideoReformatter()
        self._container = _open(address, timeout)
        try:
            if not self._container.streams.video:
                raise InputError(f"'{address}' has no video")
            stream = self._container.streams.video[0]
            rate = stream.average_rate or stream.guessed_rate
            self.fps = rate if rate and rate > 0 else _FALLBACK_FPS
            self._frames = self._decode()
            self._first = next(self._frames, None)
            if self._first is None:
                raise InputError(f"'{address}' has no frames")
        except InputError:
            self.close()
            raise
        self.height, self.width = self._first.height, self._first.width

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
            if (frame.height, frame.width) != (self.height, self.width):
                raise InputError(
                    f"frame {self._count} of '{self.address}' is {frame.width}x{frame.height}, "
                    f"the first is {self.width}x{self.height}: all frames must have the same size"
                )
            self._count += 1
            yield self._reformatter.reformat(frame, format="rgb24").to_ndarray()
            frame = next(self._frames, None)

    @property
    def problem(self) -> str | None:
        if not self._damaged:
            return None
        return f"{self._damaged} damaged parts of '{self.address}' were skipped"

    def _decode(self) -> Iterator[av.VideoFrame]:
        packets = self._container.demux(video=0)
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
