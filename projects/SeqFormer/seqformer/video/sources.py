"""Reads frames from videos and pictures.

Readers can be iterated several times. Each pass starts at the first frame.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, Protocol

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from seqformer.errors import InputError
from seqformer.formats.files import PICTURE_SUFFIXES, natural_order
from seqformer.formats.frames import LARGEST_DECODED, frame_size, is_animation, pictures_in, read_frame
from seqformer.video.display import FrameClock, FrameConverter, FrameTime, frame_rate, shown_stream
from seqformer.video.forks import Opened
from seqformer.video.live import LiveReader, is_address

__all__ = ["FrameSource", "ImageSequenceReader", "Sound", "VideoReader", "open_source", "origin_of"]

PICTURES_FPS = Fraction(10)  # pictures have no frame rate of their own


class Sound(NamedTuple):
    """The sound of a video.

    Attributes:
        path: the file.
        start: time of the video's first frame on the clock of the file, seconds.
    """

    path: Path
    start: Fraction


class FrameSource(Protocol):
    """A source of frames.

    Attributes:
        name: a name for the results.
        paths: the files that are read; empty for a live source.
        height, width: size of the frames, pixels.
        fps: average number of frames per second.
        length: number of frames that the source declares; None if unknown.
        sound: the sound that belongs to the frames; None if there is none.
        time: time of the frame that the current pass returned last.
    """

    name: str
    paths: list[Path]
    height: int
    width: int
    fps: Fraction
    time: FrameTime

    @property
    def length(self) -> int | None: ...

    @property
    def sound(self) -> Sound | None: ...

    @property
    def problem(self) -> str | None:
        """One line about what the last complete pass could not read; None if it read everything."""

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yields frames (height, width, 3), uint8 RGB."""

    def __enter__(self) -> FrameSource: ...

    def __exit__(self, *_: object) -> None: ...


class VideoReader:
    """Reads the frames of a video file as ffplay shows them; see :mod:`seqformer.video.display`.

    Parts that cannot be decoded are skipped, so that the rest of a damaged or truncated file can be used;
    ``problem`` then says what is missing.

    Args:
        path: the file, in any container and codec that FFmpeg supports.

    Raises:
        InputError: if the file is missing, empty or not a video, or no frame can be decoded; while reading,
            if the size of frames changes.

    Examples:
        >>> with VideoReader("street.mp4") as video:
        ...     for frame in video:
        ...         print(frame.shape, video.time.start)
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.name = self.path.stem
        self.paths = [self.path]
        self.decoded = 0  # frames of the current or last pass
        self.time = FrameTime(Fraction(0), Fraction(0))
        self._errors = 0  # packets that the decoder rejected
        self._concealed = 0  # decoded frames whose damage the decoder has covered up
        self._completed = False
        self._opened: Opened[InputContainer] | None = None

        opened = self._open()
        try:
            self.fps = frame_rate(opened.stream)
            clock = FrameClock(opened.container, opened.stream, self.fps)
            self._declared, self._seconds = _declared_length(opened.container, opened.stream)
            self.length = self._declared or _count_packets(opened.container, opened.stream) or None
        finally:
            self.close()
        opened = self._open()
        try:
            first = next(self._decode(opened), None)
            if first is None:
                raise InputError(f"no frame of '{path}' can be decoded: give a complete video file")
            clock(first)
            self._converter = FrameConverter(opened.stream, first, str(path))
            has_sound = bool(opened.container.streams.audio)
        finally:
            self.close()
        self.height, self.width = self._converter.height, self._converter.width
        self.sound = Sound(self.path, clock.first or Fraction(0)) if has_sound else None

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the current pass."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def __iter__(self) -> Iterator[np.ndarray]:
        self.close()
        opened = self._open()
        self.decoded = self._errors = self._concealed = 0
        self._completed = False
        clock = FrameClock(opened.container, opened.stream, self.fps)
        for frame in self._decode(opened):
            image = self._converter(frame, self.decoded)
            self.decoded += 1
            self._concealed += frame.is_corrupt
            self.time = clock(frame)
            yield image
        self._completed = True
        self.close()

    def __length_hint__(self) -> int:
        return self.length or 0

    @property
    def problem(self) -> str | None:
        if not self._completed:
            return None
        found = []
        end = float(sum(self.time))
        if self._declared and self.decoded < self._declared:
            found.append(f"{self.decoded} of {self._declared} frames of '{self.path}' could be decoded")
        elif self._seconds and (self._seconds - end) * self.fps > 2.5:
            found.append(
                f"{self.decoded} frames of '{self.path}' could be decoded, the first {end:.1f} of "
                f"{self._seconds:.1f} seconds"
            )
        elif self._errors:
            packets = "1 packet" if self._errors == 1 else f"{self._errors} packets"
            found.append(
                f"{packets} of '{self.path}' could not be decoded, {self.decoded} frames could be decoded"
            )
        if self._concealed:
            frames = "1 frame is" if self._concealed == 1 else f"{self._concealed} frames are"
            found.append(f"{frames} incomplete" + ("" if found else f" in '{self.path}'"))
        if not found:
            return None
        return f"{' and '.join(found)} (the file is damaged or truncated); results cover the decoded frames"

    def _open(self) -> Opened[InputContainer]:
        if not os.path.exists(self.path):
            raise InputError(f"no file '{self.path}'")
        if os.path.isfile(self.path) and not self.path.stat().st_size:
            raise InputError(f"'{self.path}' is empty (0 bytes): give a video file")
        no_video = f"'{self.path}' is not a video, or is truncated before its first frame: give a whole file"
        try:
            container = av.open(str(self.path), metadata_errors="replace")
        except av.error.InvalidDataError as error:
            raise InputError(no_video) from error
        except av.error.FFmpegError as error:
            raise InputError(f"'{self.path}' cannot be read: {error.strerror}") from error
        except ValueError as error:  # values that PyAV does not know
            raise InputError(no_video) from error
        stream = shown_stream(container)
        if stream is None or container.format.name == "tty":  # FFmpeg renders text files
            container.close()
            raise InputError(no_video)
        stream.thread_type = "AUTO"
        if stream.codec_context is not None:  # None: FFmpeg has no decoder
            stream.codec_context.options = {"max_pixels": str(LARGEST_DECODED)}
        self._opened = Opened(container, stream)
        return self._opened

    def _decode(self, opened: Opened[InputContainer]) -> Iterator[av.VideoFrame]:
        packets = opened.container.demux(opened.stream)
        while True:
            try:
                frames = next(packets).decode()
            except (StopIteration, av.error.EOFError):
                return
            except av.error.FFmpegError:
                self._errors += 1
            else:
                yield from frames


class ImageSequenceReader:
    """Reads pictures as the frames of a video, in natural order (2 before 10), rotated according to EXIF.

    Args:
        pictures: a folder, a glob pattern, or picture files.
        fps: frame rate of the video.
        keep_order: keep the given order of picture files, for example that of a dataset.

    Raises:
        InputError: if there are no pictures, or one cannot be read or its size differs from the first.
    """

    def __init__(
        self,
        pictures: str | Path | Sequence[str | Path],
        fps: Fraction = PICTURES_FPS,
        *,
        keep_order: bool = False,
    ):
        pictures = [pictures] if isinstance(pictures, str | Path) else pictures
        self.paths = [Path(picture) for picture in pictures] if keep_order else _expand(pictures)
        self.fps = fps
        self.length = len(self.paths)
        self.name = self.paths[0].stem if self.length == 1 else self.paths[0].resolve().parent.name
        self.time = FrameTime(Fraction(0), 1 / fps)
        self.sound: Sound | None = None
        self.height, self.width = frame_size(self.paths[0])
        for path in self.paths:
            height, width = frame_size(path)
            if (height, width) != (self.height, self.width):
                first = f"'{self.paths[0].name}' is {self.width}x{self.height}"
                raise InputError(
                    f"'{path}' is {width}x{height}, but {first}: all frames must have the same size"
                )

    def __enter__(self) -> ImageSequenceReader:
        return self

    def __exit__(self, *_: object) -> None:
        """Does nothing: pictures are closed after reading."""

    def __length_hint__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[np.ndarray]:
        for t, path in enumerate(self.paths):
            frame = read_frame(path, self.paths)
            self.time = FrameTime(t / self.fps, 1 / self.fps)
            yield frame

    @property
    def problem(self) -> str | None:
        return None


def origin_of(paths: Sequence[Path]) -> str | None:
    """Returns a digest of the files of a source, which tells its output from that of others.

    The output of a live source is never repeated, so there is none: None.
    """
    if not paths:
        return None
    names = "\0".join(str(path.resolve()) for path in paths)
    return hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def open_source(inputs: str | Path | Sequence[str | Path]) -> FrameSource:
    """Opens a video, pictures, a camera or an address.

    Args:
        inputs: a video file, a folder of pictures, a glob pattern, picture files, or one camera ("camera:0")
            or address ("rtsp://...").

    Raises:
        InputError: if the input cannot be read as one video.
    """
    inputs = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    if len(inputs) == 1 and is_address(str(inputs[0])):
        return LiveReader(str(inputs[0]))
    paths = [path for name in inputs for path in _matches(name)]
    videos = [
        path for path in paths if not os.path.isdir(path) and path.suffix.lower() not in PICTURE_SUFFIXES
    ]
    if len(paths) == 1 and not videos and is_animation(paths[0]):
        videos = paths
    if len(videos) == 1 and len(paths) == 1:
        return VideoReader(videos[0])
    if videos:
        raise InputError(
            f"'{videos[0]}' is not a picture, but several files must be pictures: give one video, or pictures"
        )
    return ImageSequenceReader(inputs)


def _declared_length(container: InputContainer, stream: VideoStream) -> tuple[int | None, float | None]:
    """Returns the stream's length from the file's header: frames, or else seconds, or neither."""
    if stream.frames and "mp4" in container.format.name:
        # An edit list may hide frames, which are left out of the index or marked in it.
        shown = sum(not entry.is_discard for entry in stream.index_entries)
        return shown or stream.frames, None
    written = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))  # Matroska
    if written:
        hours, minutes, seconds = map(float, written.groups())
        return None, 3600 * hours + 60 * minutes + seconds
    if stream.frames and stream.duration and stream.time_base:  # AVI, in which frames may be empty
        return None, float(stream.duration * stream.time_base)
    return None, None


def _count_packets(container: InputContainer, stream: VideoStream) -> int:
    """Returns the number of packets, usually that of frames. Reads the file, but decodes nothing."""
    packets = container.demux(stream)
    count = 0
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.error.FFmpegError):
            return count
        count += packet.size > 0 and not packet.is_discard


def _matches(name: str | Path) -> list[Path]:
    """Returns the path itself, or the files that match it as a glob pattern."""
    path = Path(name)
    if os.path.exists(path) or not glob.has_magic(str(path)):
        return [path]
    found = [Path(match) for match in glob.glob(str(path))]
    if not found:
        raise InputError(f"no file matches '{path}'")
    return found


def _expand(inputs: Sequence[str | Path]) -> list[Path]:
    """Returns all given pictures in natural order."""
    pictures: list[Path] = []
    for path in (match for name in inputs for match in _matches(name)):
        if not os.path.exists(path):
            raise InputError(f"no file '{path}'")
        if os.path.isdir(path):
            pictures += pictures_in(path)
        else:
            pictures.append(path)
    if not pictures:
        known = " ".join(sorted(PICTURE_SUFFIXES))
        raise InputError(
            f"no pictures in '{', '.join(map(str, inputs))}' ({known}): give a folder with pictures"
        )
    return sorted(pictures, key=natural_order)
