"""Writes frames to folders of pictures."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
from PIL import Image

from seqformer.errors import InputError
from seqformer.video.display import FrameTime

__all__ = ["FrameFolderWriter", "GrowingFolderWriter"]


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
            raise unwritable(self.path, error) from error
        return self

    def write(self, frame: np.ndarray, time: FrameTime | None = None) -> None:
        """Adds an (H, W, 3) uint8 RGB frame. Pictures have no ``time``."""
        try:
            Image.fromarray(frame).save(self._temporary / f"{self._frames:05d}.jpg", quality=95)
        except OSError as error:
            raise unwritable(self.path, error) from error
        self._frames += 1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                for picture in sorted(self._temporary.iterdir()):
                    os.replace(picture, self.path / picture.name)
        except OSError as error:
            raise unwritable(self.path, error) from error
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

    def write(self, frame: np.ndarray, time: FrameTime | None = None) -> None:
        """Adds an (H, W, 3) uint8 RGB frame. Pictures have no ``time``."""
        part = self.path / f".{self._frames:05d}.part"
        try:
            Image.fromarray(frame).save(part, format="JPEG", quality=95)
            os.replace(part, self.path / f"{self._frames:05d}.jpg")
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            raise unwritable(self.path, error) from error
        self._frames += 1

    def __exit__(self, *_: object) -> None:
        """Does nothing: all pictures are already in place."""


def unwritable(path: Path, error: OSError | av.error.FFmpegError) -> InputError:
    """Returns the error of an output, video or pictures, that cannot be written."""
    return InputError(f"'{path}' cannot be written: {error.strerror or error}; choose another folder")
