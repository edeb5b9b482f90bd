"""Writes frames to videos and pictures.

Files appear under their names only when they are complete, except those of the growing writers, which are
valid at any time.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import ClassVar, Protocol

import av
import cv2
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter
from PIL import Image

from seqformer.errors import InputError
from seqformer.video.sources import FrameSource

__all__ = [
    "FrameFolderWriter",
    "FrameWriter",
    "GrowingFolderWriter",
    "GrowingVideoWriter",
    "VideoWriter",
    "open_writer",
]

_X264_OPTIONS = {"crf": "20", "preset": "medium"}


class FrameWriter(Protocol):
    """Writes frames. The output appears at ``path`` when the ``with`` block ends without an error."""

    path: Path

    def write(self, frame: np.ndarray) -> None:
        """Adds an (H, W, 3) uint8 RGB frame."""

    def __enter__(self) -> FrameWriter: ...

    def __exit__(self, kind: type[BaseException] | None, /, *_: object) -> None: ...


class VideoWriter:
    """Writes an H.264 .mp4 that browsers can play (yuv420p, BT.709, index at the front).

    yuv420p stores colour for blocks of 2x2 pixels. If the height or width of frames is odd, the last row or
    column is duplicated.

    Args:
        path: the file; its folder is created. An existing file is replaced at the end.
        height: height of the frames, pixels.
        width: width of the frames, pixels.
        fps: frame rate; stored exactly.
        encoder: x264 options.

    Raises:
        InputError: on entering, if the file cannot be created; later, if the disk is full.

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
    ):
        self.path = Path(path)
        self.height = height
        self.width = width
        self.fps = fps
        self._encoder = dict(encoder)
        self._temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        self._frames = 0
        self._reformatter = VideoReformatter()

    def __enter__(self) -> VideoWriter:
        if os.path.isdir(self.path):
            raise InputError(f"'{self.path}' is a folder: name an .mp4 file in it")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._temporary.touch()  # checks write permission now: PyAV opens the file with the first packet
            self._container = av.open(
                str(self._temporary), "w", format="mp4", options=self._container_options
            )
        except (av.error.FFmpegError, OSError) as error:
            raise _unwritable(self.path, error) from error
        self._stream = self._container.add_stream("h264", rate=self.fps, options=self._encoder)
        self._stream.height = self.height + self.height % 2
        self._stream.width = self.width + self.width % 2
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.colorspace = Colorspace.ITU709
        context.color_range = ColorRange.MPEG
        context.color_primaries = ColorPrimaries.BT709
        context.color_trc = ColorTrc.BT709
        return self

    def write(self, frame: np.ndarray) -> None:
        """Adds an (H, W, 3) uint8 RGB frame.

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
        )
        picture.pts = self._frames
        picture.time_base = 1 / self.fps
        self._frames += 1
        self._encode(picture)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and self._frames:
                self._encode(None)
                self._container.close()
                os.replace(self._temporary, self.path)
        except (av.error.FFmpegError, OSError) as error:
            raise _unwritable(self.path, error) from error
        finally:
            with suppress(av.error.FFmpegError, OSError):
                self._container.close()
            self._temporary.unlink(missing_ok=True)

    def _encode(self, picture: av.VideoFrame | None) -> None:
        try:
            self._container.mux(self._stream.encode(picture))
        except av.error.FFmpegError as error:
            raise _unwritable(self.path, error) from error


class GrowingVideoWriter(VideoWriter):
    """A VideoWriter whose file can be played while it grows, and is kept if the program is killed.

    It writes a fragmented .mp4 under the final name, one fragment per second. At the end the file is remuxed,
    without encoding, to the form that VideoWriter writes. After an error it has all frames so far, except
    those of the last fragment if the disk is full.
    """

    _container_options: ClassVar[dict[str, str]] = {
        "movflags": "+frag_keyframe+empty_moov+default_base_moof",
        "flush_packets": "1",
    }

    def __enter__(self) -> GrowingVideoWriter:
        self._existed = os.path.exists(self.path)
        whole, self._temporary = self._temporary, self.path
        super().__enter__()
        self._temporary = whole
        self._stream.gop_size = max(1, round(self.fps))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if self._frames:
                self._encode(None)
            self._container.close()
            if not self._frames and not self._existed:
                self.path.unlink(missing_ok=True)
            elif self._frames and kind is None:
                self._copy()
                os.replace(self._temporary, self.path)
        except (InputError, av.error.FFmpegError, OSError) as error:
            with suppress(av.error.FFmpegError, OSError):
                self._container.close()
            with suppress(OSError):
                _cut_after_last_fragment(self.path)
            if kind is None:  # otherwise the first error is more useful
                raise error if isinstance(error, InputError) else _unwritable(self.path, error) from error
        finally:
            with suppress(av.error.FFmpegError, OSError):
                self._container.close()
            self._temporary.unlink(missing_ok=True)

    def _copy(self) -> None:
        options = VideoWriter._container_options
        with (
            av.open(str(self.path)) as source,
            av.open(str(self._temporary), "w", format="mp4", options=options) as target,
        ):
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    target.mux(packet)


def _cut_after_last_fragment(path: Path) -> None:
    """Truncates a fragmented .mp4 after its last complete fragment."""
    with open(path, "rb+") as file:
        size = os.fstat(file.fileno()).st_size
        start = whole = 0
        while len(header := file.read(8)) == 8:
            end = start + int.from_bytes(header[:4], "big")
            if end < start + 8 or end > size:
                break
            if header[4:] in (b"moov", b"mdat"):
                whole = end
            start = file.seek(end)
        file.truncate(whole)


class FrameFolderWriter:
    """Writes frames as 00000.jpg, 00001.jpg, ... into a new or empty folder.

    Args:
        folder: the folder; it must be new or empty, so that results do not mix.

    Raises:
        InputError: on entering, if the folder cannot be created or is not empty; later, if the disk is full.
    """

    def __init__(self, folder: str | Path):
        self.path = Path(folder)
        self._frames = 0

    def __enter__(self) -> FrameFolderWriter:
        self._made = not os.path.exists(self.path)
        # Inside the folder, not next to it: it may be a mount point or the only writable folder.
        self._temporary = self.path / f".{os.getpid()}.part"
        try:
            if not self._made and any(self.path.iterdir()):
                raise InputError(f"folder '{self.path}' is not empty: choose a new one, or empty it")
            self._temporary.mkdir(parents=True)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        return self

    def write(self, frame: np.ndarray) -> None:
        """Adds an (H, W, 3) uint8 RGB frame."""
        try:
            Image.fromarray(frame).save(self._temporary / f"{self._frames:05d}.jpg", quality=95)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        self._frames += 1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                for picture in sorted(self._temporary.iterdir()):
                    os.replace(picture, self.path / picture.name)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        finally:
            shutil.rmtree(self._temporary, ignore_errors=True)
            if self._made and kind is not None:
                with suppress(OSError):
                    self.path.rmdir()


class GrowingFolderWriter(FrameFolderWriter):
    """A FrameFolderWriter whose pictures appear one by one, and are kept if the program is killed.

    Args:
        folder: the folder, new or empty.
        resumed: the folder may contain pictures of an interrupted run, which are overwritten.
    """

    def __init__(self, folder: str | Path, resumed: bool = False):
        super().__init__(folder)
        self._resumed = resumed

    def __enter__(self) -> GrowingFolderWriter:
        if not (self._resumed and self.path.is_dir()):
            super().__enter__()
            shutil.rmtree(self._temporary, ignore_errors=True)
        return self

    def write(self, frame: np.ndarray) -> None:
        """Adds an (H, W, 3) uint8 RGB frame."""
        part = self.path / f".{self._frames:05d}.part"
        try:
            Image.fromarray(frame).save(part, format="JPEG", quality=95)
            os.replace(part, self.path / f"{self._frames:05d}.jpg")
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            raise _unwritable(self.path, error) from error
        self._frames += 1

    def __exit__(self, *_: object) -> None:
        """Does nothing: all pictures are already in place."""


def open_writer(
    output: str | Path, source: FrameSource, *, growing: bool = False, resumed: bool = False
) -> FrameWriter:
    """Returns a writer for frames with the size and rate of ``source``.

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
    return kind(path, source.height, source.width, source.fps)


def _unwritable(path: Path, error: OSError | av.error.FFmpegError) -> InputError:
    return InputError(f"'{path}' cannot be written: {error.strerror or error}; choose another folder")
