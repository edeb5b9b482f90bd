"""What a player shows of a file: which stream, when each frame, and how its pixels are turned and scaled.

The rules are those of ffplay, so that results belong to what people see.
"""

from __future__ import annotations

import logging
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from seqformer.errors import InputError

__all__ = ["FALLBACK_FPS", "FrameClock", "FrameConverter", "FrameTime", "frame_rate", "shown_stream"]

FALLBACK_FPS = Fraction(25)  # the rate that players assume

_LONGEST_STEP = 3600  # seconds between two frames; more is a jump of the clock
_LONGEST_STEP_OF_STREAMS = 10  # the same for formats whose clock may jump, such as MPEG-TS
_TS_DISCONT = 0x0200  # FFmpeg's flag of such formats
_MOST_STRETCHED = 8  # largest and, inverted, smallest ratio of a pixel's width and height

_logger = logging.getLogger(__name__)


class FrameTime(NamedTuple):
    """When a frame is shown.

    Attributes:
        start: seconds after the first frame.
        duration: seconds until the next frame, as far as the file tells.
    """

    start: Fraction
    duration: Fraction


def shown_stream(container: InputContainer) -> VideoStream | None:
    """Returns the video stream that ffplay shows; None if there is none, or only a cover picture.

    FFmpeg prefers streams with several frames, which excludes thumbnails, and then a high bit rate.
    """
    pictures = av.stream.Disposition.attached_pic
    best = container.streams.best("video")
    candidates = [best] if isinstance(best, VideoStream) else []
    for stream in (*candidates, *container.streams.video):
        if not stream.disposition & pictures:
            return stream
    return None


def frame_rate(stream: VideoStream) -> Fraction:
    """Returns the average frame rate, frames per second."""
    rate = stream.average_rate or stream.guessed_rate
    return rate if rate and rate > 0 else FALLBACK_FPS


class FrameClock:
    """Finds the times of frames from their timestamps.

    Where timestamps are missing, go back or jump, the duration of the frame before is used. Timestamps on the
    grid of a constant frame rate that are rounded to the ticks of the file become exact.

    Args:
        container, stream: the source.
        fps: its average frame rate.

    Attributes:
        first: timestamp of the first frame in the file, seconds; None if it has none.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, fps: Fraction):
        self.first: Fraction | None = None
        self._fps = fps
        self._tick = stream.time_base or Fraction(1, 1000)
        jumps = container.format.flags & _TS_DISCONT
        self._longest = _LONGEST_STEP_OF_STREAMS if jumps else _LONGEST_STEP
        self._previous: Fraction | None = None  # timestamp, seconds
        self._time: FrameTime | None = None
        self._last = {"pts": -(1 << 62), "dts": -(1 << 62)}
        self._faults = {"pts": 0, "dts": 0}

    def __call__(self, frame: av.VideoFrame) -> FrameTime:
        """Returns the time of the next frame."""
        stamp = self._timestamp(frame)
        duration = frame.duration * self._tick if frame.duration else 1 / self._fps
        if self._time is None:
            self.first, start = stamp, Fraction(0)
        else:
            step = None if stamp is None or self._previous is None else stamp - self._previous
            if step is None or not 0 < step <= self._longest:
                step = self._time.duration
            start = self._time.start + step
        self._previous = stamp if stamp is not None else self._previous and self._previous + duration
        self._time = FrameTime(start, duration)
        return FrameTime(self._exact(start), self._exact(duration))

    def _timestamp(self, frame: av.VideoFrame) -> Fraction | None:
        """Returns the presentation time, or the decoding time if the former goes back more often."""
        stamps = {"pts": frame.pts, "dts": frame.dts}
        for name, stamp in stamps.items():
            if stamp is not None:
                self._faults[name] += stamp <= self._last[name]
                self._last[name] = stamp
        trusted = self._faults["pts"] <= self._faults["dts"]
        best = stamps["pts"] if trusted or stamps["dts"] is None else stamps["dts"]
        best = stamps["dts"] if best is None else best
        return None if best is None else best * self._tick

    def _exact(self, seconds: Fraction) -> Fraction:
        nearest = round(seconds * self._fps) / self._fps
        fine = self._tick * self._fps <= Fraction(1, 10)
        return nearest if fine and abs(nearest - seconds) <= self._tick else seconds


class FrameConverter:
    """Converts decoded frames to RGB: upright, with square pixels, and blended with black if transparent.

    The height of frames is kept and their width is scaled, if pixels are not square.

    Args:
        stream: the stream of the frames.
        first: its first frame.
        name: name of the source in messages.

    Attributes:
        height, width: size of the converted frames, pixels.
    """

    def __init__(self, stream: VideoStream, first: av.VideoFrame, name: str):
        self._name = name
        self._coded_size = first.height, first.width
        self._transposed, self._flips = _orientation(first)
        aspect = stream.sample_aspect_ratio or Fraction(1)
        if not Fraction(1, _MOST_STRETCHED) <= aspect <= _MOST_STRETCHED:
            _logger.warning("'%s' has pixels of %s by %s, which are taken as square", name, *_ratio(aspect))
            aspect = Fraction(1)
        height, width = self._coded_size
        self._size = (
            (max(1, round(height / aspect)), width)
            if self._transposed
            else (height, max(1, round(width * aspect)))
        )
        self.height, self.width = self._size[::-1] if self._transposed else self._size
        # Shared by all frames, because to_ndarray would build its conversion tables again for each frame.
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame, number: int) -> np.ndarray:
        """Converts a frame.

        Args:
            frame: the frame.
            number: its number for messages, from 0.

        Returns:
            (height, width, 3) uint8 RGB.

        Raises:
            InputError: if its size differs from the first frame.
        """
        if (frame.height, frame.width) != self._coded_size:
            height, width = self._coded_size
            raise InputError(
                f"frame {number} of '{self._name}' is {frame.width}x{frame.height}, "
                f"the first is {width}x{height}: all frames must have the same size"
            )
        height, width = self._size
        transparent = frame.format.has_palette or any(part.is_alpha for part in frame.format.components)
        kind = "rgba" if transparent else "rgb24"
        # With one thread, because freeing more in a process forked from this one would wait for them forever.
        image = self._reformatter.reformat(frame, width, height, kind, threads=1).to_ndarray()
        if transparent:
            deep = image.astype(np.uint16)
            image = ((deep[..., :3] * deep[..., 3:] + 127) // 255).astype(np.uint8)
        if self._transposed:
            image = image.transpose(1, 0, 2)
        return np.ascontiguousarray(image[self._flips])


def _orientation(frame: av.VideoFrame) -> tuple[bool, tuple[slice, slice]]:
    """Returns how a frame is turned upright: whether to transpose it, then the directions of y and x."""
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return False, (slice(None), slice(None))
    # Pixel (x, y) is shown at (a x + c y, b x + d y), 16.16 fixed point.
    a, b, _, c, d = np.frombuffer(data, np.int32)[:5].tolist()
    transposed = abs(b) > abs(a)
    x, y = (c, b) if transposed else (a, d)
    return transposed, (slice(None, None, -1 if y < 0 else 1), slice(None, None, -1 if x < 0 else 1))


def _ratio(aspect: Fraction) -> tuple[int, int]:
    return aspect.numerator, aspect.denominator
