"""Folders of pictures: frames, and annotations stored as pictures."""

from __future__ import annotations

import os
from collections.abc import Container
from pathlib import Path

import numpy as np
from PIL import Image

from seqformer.errors import InputError
from seqformer.formats.files import PICTURE_SUFFIXES, natural_order

__all__ = [
    "UNREADABLE",
    "folders_with",
    "frame_number",
    "frame_size",
    "list_pictures",
    "pictures_in",
    "read_ids",
    "subfolders",
]

UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
_ORIENTATION = 0x0112  # EXIF; values from 5 to 8 swap width and height
_MOST_LEVELS = 16
_ID_MODES = {"1", "L", "P", "I", "I;16", "I;16B"}


def pictures_in(folder: Path) -> list[Path]:
    """Returns the pictures in a folder in natural order, without hidden files.

    Raises:
        InputError: if the folder cannot be read.
    """
    try:
        names = [name for name in os.listdir(folder) if not name.startswith(".")]
    except OSError as error:
        raise InputError(f"cannot read the folder '{folder}': {error.strerror}") from error
    paths = (folder / name for name in names)
    return sorted((path for path in paths if path.suffix.lower() in PICTURE_SUFFIXES), key=natural_order)


def list_pictures(folder: Path) -> dict[str, Path]:
    """Returns the pictures in a folder by file name without suffix, in natural order.

    Raises:
        InputError: if the folder cannot be read, or two pictures differ only in their suffix.
    """
    pictures: dict[str, Path] = {}
    for path in pictures_in(folder):
        if path.stem in pictures:
            raise InputError(f"'{pictures[path.stem]}' and '{path}' have the same name")
        pictures[path.stem] = path
    return pictures


def subfolders(folder: Path) -> list[Path]:
    """Returns the subfolders of a folder in natural order.

    Raises:
        InputError: if the folder cannot be read.
    """
    try:
        folders = [folder / entry.name for entry in os.scandir(folder) if entry.is_dir()]
    except OSError as error:
        raise InputError(f"cannot read the folder '{folder}': {error.strerror}") from error
    return sorted(folders, key=natural_order)


def folders_with(root: Path, suffixes: Container[str], levels: int = _MOST_LEVELS) -> list[tuple[str, Path]]:
    """Returns the folders below ``root`` that hold such files, or nothing but files, in natural order.

    Args:
        root: the folder to search.
        suffixes: of the files, in lower case.
        levels: how deep folders may be nested; links could lead back to a folder above.

    Returns:
        Names relative to ``root``, with slashes, and paths.

    Raises:
        InputError: if a folder cannot be read, or they are nested too deep.
    """
    if not levels:
        raise InputError(f"'{root}': folders are nested deeper than {_MOST_LEVELS} levels")
    found = []
    for folder in subfolders(root):
        inner = subfolders(folder)
        try:
            names = os.listdir(folder)
        except OSError as error:
            raise InputError(f"cannot read the folder '{folder}': {error.strerror}") from error
        if not inner or any(Path(name).suffix.lower() in suffixes for name in names):
            found.append((folder.name, folder))
        found += [
            (f"{folder.name}/{name}", path) for name, path in folders_with(folder, suffixes, levels - 1)
        ]
    return found


def frame_number(path: Path) -> int:
    """Returns the frame number in a file name.

    Raises:
        InputError: if the name is not a number.
    """
    if not path.stem.isdecimal():
        raise InputError(f"'{path}': the file name must be the frame number")
    return int(path.stem)


def frame_size(path: Path, decode: bool = False) -> tuple[int, int]:
    """Returns height and width of a picture in pixels, after applying its EXIF orientation.

    Args:
        path: the picture.
        decode: decode the whole picture, to check that the file is complete.

    Raises:
        InputError: if the picture cannot be read.
    """
    try:
        with Image.open(path) as image:
            if decode:
                image.load()
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION, 1) in range(5, 9)
    except UNREADABLE as error:
        raise _unreadable(path, error) from error
    return (width, height) if turned else (height, width)


def read_ids(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Returns the palette indices or grey levels of a picture as ids (H, W), int64.

    Args:
        path: the picture.
        size: the height and width that it must have, pixels; checked before it is decoded.

    Raises:
        InputError: if the picture cannot be read, is in colour or has a different size.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in _ID_MODES:
                raise InputError(
                    f"'{path}' is in colour (mode {image.mode}): ids must be palette indices or grey levels"
                )
            if (image.height, image.width) != size:
                raise InputError(
                    f"'{path}' is {image.width}x{image.height} pixels, but its frame is {size[1]}x{size[0]}"
                )
            return np.asarray(image).astype(np.int64)
    except InputError:
        raise
    except UNREADABLE as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: BaseException) -> InputError:
    reason = " ".join(str(getattr(error, "strerror", None) or error).split())
    return InputError(f"'{path}' cannot be read: {reason}")
