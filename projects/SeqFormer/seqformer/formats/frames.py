"""Pictures in folders: frames, and annotations that are pictures."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
from PIL import Image

from seqformer.errors import InputError

__all__ = ["frame_number", "frame_size", "list_pictures", "read_ids", "subfolders"]

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
_ORIENTATION = 0x0112  # EXIF; from 5 on, width and height change places
_ID_MODES = {"1", "L", "P", "I", "I;16", "I;16B"}


def list_pictures(folder: Path) -> dict[str, Path]:
    """Pictures of a folder by name without suffix, in the order of names; numbers are compared as numbers.

    Raises:
        InputError: if there is no such folder, or two pictures differ by their suffix only.
    """
    try:
        paths = [folder / name for name in os.listdir(folder)]
    except OSError as error:
        raise InputError(f"cannot read the folder '{folder}': {error.strerror}") from error
    paths = [path for path in paths if path.suffix.lower() in _SUFFIXES]
    pictures: dict[str, Path] = {}
    for path in sorted(paths, key=lambda path: _natural(path.name)):
        if path.stem in pictures:
            raise InputError(f"'{pictures[path.stem]}' and '{path}' have the same name")
        pictures[path.stem] = path
    return pictures


def subfolders(folder: Path) -> list[Path]:
    """Folders in a folder, in the order of names.

    Raises:
        InputError: if there is no such folder.
    """
    try:
        entries = [entry for entry in os.scandir(folder) if entry.is_dir()]
    except OSError as error:
        raise InputError(f"cannot read the folder '{folder}': {error.strerror}") from error
    return [folder / entry.name for entry in sorted(entries, key=lambda entry: _natural(entry.name))]


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def frame_number(path: Path) -> int:
    """The number that a frame is named by.

    Raises:
        InputError: if its name is not a number.
    """
    if not path.stem.isdecimal():
        raise InputError(f"'{path}': its name must be the number of the frame")
    return int(path.stem)


def frame_size(path: Path, decode: bool = False) -> tuple[int, int]:
    """Height and width of a picture in pixels, as it is shown (EXIF orientation applied).

    Args:
        path: the picture.
        decode: read all of it, to find out whether it is complete.

    Raises:
        InputError: if it cannot be read.
    """
    try:
        with Image.open(path) as image:
            if decode:
                image.load()
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION, 1) in range(5, 9)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    return (width, height) if turned else (height, width)


def read_ids(path: Path) -> np.ndarray:
    """The numbers (H, W) of a picture whose pixels are ids: palette indices or grey levels.

    Raises:
        InputError: if it cannot be read or is in colour.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in _ID_MODES:
                raise InputError(
                    f"'{path}' is in colour (mode {image.mode}): ids must be the indices of a palette or "
                    "grey levels"
                )
            return np.asarray(image).astype(np.int64)
    except InputError:
        raise
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: BaseException) -> InputError:
    reason = " ".join(str(getattr(error, "strerror", None) or error).split())
    return InputError(f"'{path}' cannot be read: {reason}")
