"""Writes frames to videos, and chooses the writer of an output.

Files appear under their names only when they are complete, except those of the growing writers, which are
valid at any time.
"""

from __future__ import annotations

import errno
import heapq
import logging
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from fractions import Fraction
from pathlib import Path
from typing import ClassVar, Protocol

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter

from seqformer.errors import InputError
from seqformer.formats.files import locked
from seqformer.video.display import FrameTime
from seqformer.video.folders import FrameFolderWriter, GrowingFolderWriter, unwritable
from seqformer.video.forks import Opened
from seqformer.video.sources import FrameSource, Sound, origin_of

__all__ = [
    "FrameWriter",
    "GrowingVideoWriter",
    "VideoWriter",
    "open_writer",
    "read_origin",
]

# As similar to the frames as crf 20 of the preset "medium": 40 % of its processor time, 125 % of its size.
_X264_OPTIONS = {"crf": "18", "preset": "veryfast"}
_FINEST = 10_000  # at least this many ticks per second
_MOST_TICKS = 1_000_000
_ORIGIN_KEY, _ORIGIN_PREFIX = "comment", "SeqFormer, origin "

_logger = logging.getLogger(__name__)


class FrameWriter(Protocol):
    """Writes frames. The output appears at ``path`` when the ``with`` block ends without an error."""

    path: Path

    def write(self, frame: np.ndarray, time: FrameTime | None = None) -> None:
        """Adds an (H, W, 3) uint8 RGB frame, shown at ``time``; by default at a constant rate."""

    def __enter__(self) -> FrameWriter: ...

    def __exit__(self, kind: type[BaseException] | None, /, *_: object) -> None: ...


class VideoWriter:
    """Writes an H.264 .mp4 that browsers can play (yuv420p, BT.709, index at the front).

    yuv420p stores colour for blocks of 2x2 pixels. If the height or width of frames is odd, the last row or
    column is duplicated. There are no B-frames, so that frames of any times are shown from the first to the
    last without an edit list.

    Args:
        path: the file; its folder is created. An existing file is replaced at the end.
        height: height of the frames, pixels.
        width: width of the frames, pixels.
        fps: frame rate; stored exactly if frames are written without other times.
        encoder: x264 options.
        sound: is copied to the file, as it is. A warning is logged if .mp4 files cannot store it.
        origin: stored in the file; see :func:`read_origin`.

    Raises:
        InputError: on entering, if the file cannot be created or another process is writing it; later, if the
            disk is full.

    Examples:
        >>> with VideoWriter("out.mp4", 480, 640, Fraction(30000, 1001)) as writer:
        ...     writer.write(frame)
    """

    _container_options: ClassVar[dict[str, str]] = {"movflags": "+faststart"}

    def __init__(
        self,
        path: str | Path,
        height: int,
        width: int,
        fps: Fraction,
        encoder: Mapping[str, str] = _X264_OPTIONS,
        sound: Sound | None = None,
        origin: str | None = None,
    ):
        self.path = Path(path)
        self.height = height
        self.width = width
        self.fps = fps
        self._encoder = dict(encoder)
        self._temporary = self.path.with_name(f".{self.path.name}.part")
        self._lock = ExitStack()
        self._sound = sound
        self._metadata = {_ORIGIN_KEY: _ORIGIN_PREFIX + origin} if origin else {}
        self._frames = 0
        self._tick = _tick(fps)
        self._durations: dict[int, int] = {}  # ticks; by time, of frames that are still being encoded
        self._last = -1  # time of the last frame, ticks
        self._reformatter = VideoReformatter()

    def __enter__(self) -> VideoWriter:
        if os.path.isdir(self.path):
            raise InputError(f"'{self.path}' is a folder: name an .mp4 file in it")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = self.path.with_name(f".{self.path.name}.lock")
            self._lock.enter_context(locked(lock, f"'{self.path}'"))
            self._temporary.touch()  # checks write permission now: PyAV opens the file with the first packet
            self._container = av.open(
                str(self._temporary), "w", format="mp4", options=self._container_options
            )
        except (av.error.FFmpegError, OSError) as error:
            self._lock.close()
            raise unwritable(self.path, error) from error
        self._container.metadata.update(self._metadata)
        options = {"bf": "0", **self._encoder}
        self._stream = self._container.add_stream("h264", rate=self.fps, options=options)
        self._stream.height = self.height + self.height % 2
        self._stream.width = self.width + self.width % 2
        self._stream.pix_fmt = "yuv420p"
        self._opened = Opened(self._container, self._stream)
        context = self._stream.codec_context
        context.time_base = self._tick
        context.colorspace = Colorspace.ITU709
        context.color_range = ColorRange.MPEG
        context.color_primaries = ColorPrimaries.BT709
        context.color_trc = ColorTrc.BT709
        return self

    def write(self, frame: np.ndarray, time: FrameTime | None = None) -> None:
        """Adds an (H, W, 3) uint8 RGB frame, shown at ``time``; by default at a constant rate.

        Raises:
            ValueError: if the size of the frame is wrong.
        """
        if frame.shape != (self.height, self.width, 3):
            raise ValueError(f"a frame of shape {frame.shape} for a {self.width}x{self.height} video")
        if self.height % 2 or self.width % 2:
            frame = cv2.copyMakeBorder(
                frame, 0, self.height % 2, 0, self.width % 2, borderType=cv2.BORDER_REPLICATE
            )
        picture = self._reformatter.reformat(
            av.VideoFrame.from_ndarray(frame),
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            threads=1,  # as in FrameConverter
        )
        time = time or FrameTime(self._frames / self.fps, 1 / self.fps)
        self._last = max(round(time.start / self._tick), self._last + 1)
        self._durations[self._last] = max(1, round(time.duration / self._tick))
        picture.pts, picture.time_base = self._last, self._tick
        self._frames += 1
        self._encode(picture)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and self._frames:
                self._encode(None)
                self._container.close()
                self._finish(self._temporary)
        except (av.error.FFmpegError, OSError) as error:
            raise unwritable(self.path, error) from error
        finally:
            with suppress(av.error.FFmpegError, OSError):
                self._container.close()
            with suppress(OSError):
                self._temporary.unlink(missing_ok=True)
            self._lock.close()

    def _encode(self, picture: av.VideoFrame | None) -> None:
        try:
            for packet in self._stream.encode(picture):
                if packet.pts is not None:
                    packet.duration = self._durations.pop(packet.pts, 0)
                self._container.mux(packet)
        except av.error.FFmpegError as error:
            raise unwritable(self.path, error) from error

    def _finish(self, written: Path) -> None:
        """Moves the written file to its place, with the sound."""
        if self._sound is not None:
            with_sound = self._temporary.with_suffix(".sound.part")
            try:
                options = VideoWriter._container_options
                if _add_sound(written, self._sound, with_sound, options, self._metadata):
                    os.replace(with_sound, written)
            finally:
                with_sound.unlink(missing_ok=True)
        os.replace(written, self.path)


class GrowingVideoWriter(VideoWriter):
    """A VideoWriter whose file can be played while it grows, and is kept if the program is killed.

    It writes a fragmented .mp4 without sound, about one fragment per second. The file has its final name from
    the first fragment on. At the end it is remuxed, without encoding, to the form that VideoWriter writes.
    After an error it has all frames so far, except those of the last fragment if the disk is full.
    """

    _container_options: ClassVar[dict[str, str]] = {
        "movflags": "+frag_keyframe+empty_moov+default_base_moof",
        "flush_packets": "1",
    }

    def __enter__(self) -> GrowingVideoWriter:
        whole, self._temporary = self._temporary, self._temporary.with_suffix(".growing.part")
        super().__enter__()
        self._growing, self._temporary = self._temporary, whole
        self._stream.gop_size = max(1, round(self.fps))
        return self

    def write(self, frame: np.ndarray, time: FrameTime | None = None) -> None:
        """Adds an (H, W, 3) uint8 RGB frame, shown at ``time``; by default at a constant rate.

        Raises:
            ValueError: if the size of the frame is wrong.
        """
        super().write(frame, time)
        if self._growing != self.path and _complete_fragments(self._growing):
            self._place()

    def _place(self) -> None:
        os.replace(self._growing, self.path)
        self._growing = self.path

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if self._frames:
                self._encode(None)
            self._container.close()
            if self._frames:
                self._place()
                if kind is None:
                    self._copy()
                    self._finish(self._temporary)
        except (InputError, av.error.FFmpegError, OSError) as error:
            with suppress(av.error.FFmpegError, OSError):
                self._container.close()
            with suppress(OSError):
                if whole := _complete_fragments(self._growing):
                    os.truncate(self._growing, whole)
                    self._place()
            if kind is None:  # otherwise the first error is more useful
                raise error if isinstance(error, InputError) else unwritable(self.path, error) from error
        finally:
            with suppress(av.error.FFmpegError, OSError):
                self._container.close()
            with suppress(OSError):
                self._temporary.unlink(missing_ok=True)
            if self._growing != self.path:
                with suppress(OSError):
                    self._growing.unlink(missing_ok=True)
            self._lock.close()

    def _copy(self) -> None:
        options = VideoWriter._container_options
        with (
            av.open(str(self.path), metadata_errors="replace") as source,
            av.open(str(self._temporary), "w", format="mp4", options=options) as target,
        ):
            target.metadata.update(self._metadata)
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    target.mux(packet)


def _tick(fps: Fraction) -> Fraction:
    """Returns a unit of time, seconds, of which frames at a constant rate are whole multiples."""
    if fps.numerator > _MOST_TICKS:
        return Fraction(1, 90_000)
    return Fraction(1, fps.numerator * math.ceil(_FINEST / fps.numerator))


def _add_sound(
    video: Path, sound: Sound, target: Path, options: dict[str, str], metadata: dict[str, str]
) -> bool:
    """Writes a copy of a video with sound.

    Returns:
        Whether there is a copy. If the sound cannot be stored, a warning is logged.
    """
    try:
        with (
            av.open(str(video), metadata_errors="replace") as source,
            av.open(str(sound.path), metadata_errors="replace") as heard,
            av.open(str(target), "w", format="mp4", options=options) as copy,
        ):
            copy.metadata.update(metadata)
            picture = source.streams.video[0]
            copied: dict[Stream, Stream] = {picture: copy.add_stream_from_template(picture)}
            for stream in heard.streams.audio:
                try:
                    copied[stream] = copy.add_stream_from_template(stream)
                except ValueError:
                    _logger.warning(
                        "sound of '%s' is not saved: .mp4 cannot store %s",
                        sound.path,
                        stream.codec_context.name,
                    )
            sounds = [stream for stream in copied if stream is not picture]
            if not sounds:
                return False
            # Sound may begin before the first frame. Then the video begins late, as in the source.
            starts = [s.start_time * s.time_base for s in sounds if s.start_time is not None and s.time_base]
            start = min([sound.start, *starts])
            streams = [
                _shifted(source, [picture], sound.start - start),
                _shifted(heard, sounds, -start),
            ]
            for _, packet in heapq.merge(*streams, key=lambda item: item[0]):
                packet.stream = copied[packet.stream]
                copy.mux(packet)
    except (av.error.FFmpegError, OSError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            raise
        _logger.warning("sound of '%s' is not saved: %s", sound.path, error.strerror or error)
        return False
    return True


def _shifted(
    container: InputContainer, streams: list[Stream], seconds: Fraction
) -> Iterator[tuple[Fraction, Packet[Stream]]]:
    """Yields the packets of some streams, shifted in time, each with its decoding time in seconds.

    Ends where the file cannot be read.
    """
    packets = container.demux(streams)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.error.FFmpegError):
            return
        decoded = packet.pts if packet.dts is None else packet.dts
        if decoded is not None and packet.time_base:
            shift = round(seconds / packet.time_base)
            packet.dts = decoded + shift
            packet.pts = None if packet.pts is None else packet.pts + shift
            yield packet.dts * packet.time_base, packet


def _complete_fragments(path: Path) -> int:
    """Returns the size, in bytes, of the complete fragments at the start of an .mp4; 0 if there are none."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = whole = 0
        while len(header := file.read(8)) == 8:
            end = start + int.from_bytes(header[:4], "big")
            if end < start + 8 or end > size:
                break
            if header[4:] == b"mdat":
                whole = end
            start = file.seek(end)
        return whole


def open_writer(
    output: str | Path, source: FrameSource, *, growing: bool = False, resumed: bool = False
) -> FrameWriter:
    """Returns a writer for frames with the size and rate of ``source``, and for its sound.

    Args:
        output: an .mp4 file for a video; a name without a suffix, or an existing folder, for pictures.
        source: the source of the frames.
        growing: keep files valid at any time, and keep them after an error.
        resumed: with ``growing``, continue the output of an interrupted run.

    Raises:
        InputError: if ``output`` is a different kind of file, or is read by ``source``.
    """
    path = Path(output)
    if os.path.isdir(path) or not path.suffix:
        return GrowingFolderWriter(path, resumed) if growing else FrameFolderWriter(path)
    if path.suffix.lower() != ".mp4":
        raise InputError(f"output '{path}': name an .mp4 file, or a folder (without a suffix) for pictures")
    if os.path.exists(path) and any(path.samefile(read) for read in source.paths):
        raise InputError(f"output '{path}' is the input: choose another name")
    kind = GrowingVideoWriter if growing else VideoWriter
    origin = origin_of(source.paths)
    return kind(path, source.height, source.width, source.fps, sound=source.sound, origin=origin)


def read_origin(path: str | Path) -> str | None:
    """Returns the digest of the source that an .mp4 was made from; see :func:`origin_of`.

    Returns:
        None if the file was not written by :class:`VideoWriter`, or from a live source.
    """
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            comment = container.metadata.get(_ORIGIN_KEY, "")
    except (av.error.FFmpegError, OSError, ValueError):
        return None
    return comment.removeprefix(_ORIGIN_PREFIX) if comment.startswith(_ORIGIN_PREFIX) else None
