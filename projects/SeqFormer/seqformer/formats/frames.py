"""Folders of pictures: frames, and annotations stored as pictures.

:func:`read_frame` is the only reader of frames: training, evaluation, the demo and the checks see the same
pixels.
"""

from __future__ import annotations

import os
from collections.abc import Container, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from seqformer.errors import InputError
from seqformer.formats.files import PICTURE_SUFFIXES, natural_order

__all__ = [
    "LARGEST_DECODED",
    "UNREADABLE",
    "folders_with",
    "frame_number",
    "frame_size",
    "is_animation",
    "list_pictures",
    "pictures_in",
    "read_frame",
    "read_ids",
    "subfolders",
]

UNREADABLE = (Exception,)  # Pillow raises nearly everything for damaged files, and MemoryError for large ones
# Pixels, such as 16384x8192. A file of 34 bytes can ask for more memory than there is.
LARGEST_DECODED = 2**27
_ORIENTATION = 0x0112  # EXIF; values from 5 to 8 swap width and height
_MOST_LEVELS = 16
_ROWS = 1024
_WIDTH, _HEIGHT, _PHOTOMETRIC = 256, 257, 262  # TIFF tags
_WHITE_IS_ZERO = 0  # photometric
_DEEP = 65535  # largest level of 16 bits
_TWELVE_BITS = 4095
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


def frame_size(path: str | Path) -> tuple[int, int]:
    """Returns height and width of a frame in pixels from the file's header, after applying its orientation.

    Raises:
        InputError: if the picture cannot be read or cannot be a frame; see :func:`read_frame`.
    """
    try:
        with Image.open(path) as image:
            _check_kind(image, path)
            size = image.size
            if isinstance(
                image, TiffImageFile
            ):  # some versions of Pillow have applied the orientation, others not
                size = image.tag_v2[_WIDTH], image.tag_v2[_HEIGHT]
            turned = image.getexif().get(_ORIENTATION, 1) in range(5, 9)
    except InputError:
        raise
    except UNREADABLE as error:
        raise _unreadable(path, error) from error
    return size if turned else size[::-1]


def read_frame(path: str | Path, video: Sequence[str | Path] = ()) -> np.ndarray:
    """Reads a picture as a frame, upright according to EXIF.

    16-bit levels are scaled by their range: 65535 becomes 255. 12-bit levels are often stored in 16-bit files
    without scaling, so if no level of any picture of the video exceeds 4095, then 4095 becomes 255.
    Transparent parts are blended with black.

    Args:
        path: the picture.
        video: the pictures of the same video, which have the same range; by default ``path`` alone.

    Returns:
        (H, W, 3) uint8 RGB, writable.

    Raises:
        InputError: if the picture cannot be read, has several images (an animation), levels of other ranges
            (float, or integers beyond 16 bits), or 12-bit colours in a 16-bit file, of which Pillow reads
            only 4 bits.
    """
    try:
        with Image.open(path) as image:
            _check_kind(image, path)
            largest = _largest_level(image)
            twelve_bits = 0 < largest <= _TWELVE_BITS and not any(map(_exceeds_twelve_bits, video))
            ImageOps.exif_transpose(image, in_place=True)
            if image.mode.startswith("I"):
                return _scaled(image, path, 4 if twelve_bits else 8)
            if not twelve_bits:
                return _on_black(image)
    except InputError:
        raise
    except UNREADABLE as error:
        raise _unreadable(path, error) from error
    raise InputError(
        f"'{path}' has 16-bit colours, none above {_TWELVE_BITS} (12 bits): save it with 8 bits, or "
        "scale its levels to 16 bits"
    )


def is_animation(path: str | Path) -> bool:
    """Returns whether a file is an animated PNG, which is a video."""
    try:
        with Image.open(path) as image:
            return image.format == "PNG" and getattr(image, "n_frames", 1) > 1
    except UNREADABLE:
        return False


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
            _check_kind(image, path)
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


def _check_kind(image: Image.Image, path: str | Path) -> None:
    """Raises an InputError for pictures that cannot be a frame, as far as their headers tell."""
    if image.width * image.height > LARGEST_DECODED:
        size = f"{image.width}x{image.height}"
        raise InputError(f"'{path}' has {size} pixels: pictures of at most {LARGEST_DECODED} can be read")
    if isinstance(image, TiffImageFile):
        extents = [tile[1] for tile in image.tile if tile[1]]
        areas = [(right - left) * (bottom - top) for left, top, right, bottom in extents]
        if sum(areas) < image.width * image.height:  # Pillow would leave the rest black
            raise InputError(f"'{path}' is incomplete: it has data for {sum(areas)} pixels only")
    if image.mode == "F":
        raise InputError(f"'{path}' has float levels, whose range is unknown: save it with 8 or 16 bits")
    count = getattr(image, "n_frames", 1)
    if count > 1 and image.format != "MPO":  # cameras store previews and second views as MPO
        raise InputError(f"'{path}' contains {count} pictures, not one: save them as files, or as a video")


def _largest_level(image: ImageFile.ImageFile) -> int:
    """Decodes a picture and returns its largest 16-bit level; 0 if it has 8 bits, or levels of known range.

    Of 16-bit colours Pillow reads 8 bits, which are taken as the high byte of the largest level possible.
    """
    raw_modes = {tile[3] if isinstance(tile[3], str) else tile[3][0] for tile in image.tile if tile[3]}
    deep_colour = any(str(mode).partition(";")[2].startswith("16") for mode in raw_modes)
    image.load()
    if image.mode.startswith("I"):
        return 0 if image.format == "PPM" else int(np.asarray(image).max())  # PPM: scaled by Pillow
    if not deep_colour:
        return 0
    levels = np.asarray(image)
    high = int((levels[..., :-1] if image.mode in ("LA", "RGBA") else levels).max())
    return 256 * high + 255 if high else 0


def _exceeds_twelve_bits(path: str | Path) -> bool:
    """Returns whether a picture has a 16-bit level that 12 bits cannot store; False if it cannot be read."""
    try:
        return _file_exceeds_twelve_bits(str(path), os.stat(path).st_mtime_ns)
    except UNREADABLE:
        return False


@lru_cache(maxsize=1 << 16)
def _file_exceeds_twelve_bits(path: str, changed: int) -> bool:
    with Image.open(path) as image:
        return _largest_level(image) > _TWELVE_BITS


def _on_black(image: Image.Image) -> np.ndarray:
    """Returns a picture of 8 bits as (H, W, 3) uint8; transparent parts are blended with black."""
    transparent = image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info
    rgb = np.empty((image.height, image.width, 3), dtype=np.uint8)
    for top in range(0, image.height, _ROWS):  # parts, so that copies of large pictures need little memory
        part = image.crop((0, top, image.width, min(top + _ROWS, image.height)))
        if transparent:
            pixels = np.asarray(part.convert("RGBA"), dtype=np.uint16)
            rgb[top : top + _ROWS] = (pixels[..., :3] * pixels[..., 3:] + 127) // 255
        else:
            rgb[top : top + _ROWS] = np.asarray(part.convert("RGB"))
    return rgb


def _scaled(image: Image.Image, path: str | Path, shift: int) -> np.ndarray:
    """Returns a grey picture of more than 8 bits as (H, W, 3) uint8.

    Args:
        image: the picture, upright.
        path: its path, for messages.
        shift: number of low bits to drop.
    """
    levels = np.asarray(image)
    low, high = int(levels.min()), int(levels.max())
    if low < 0 or high > _DEEP:
        raise InputError(
            f"'{path}' has levels from {low} to {high}, not from 0 to {_DEEP}: save it with 8 or 16 bits"
        )
    if isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        raise InputError(f"'{path}' has 16-bit levels of which 0 is white: save it with 0 as black")
    grey = (levels >> shift).astype(np.uint8)
    if "transparency" in image.info:
        grey[levels == image.info["transparency"]] = 0
    return np.repeat(grey[..., None], 3, axis=2)


def _unreadable(path: str | Path, error: BaseException) -> InputError:
    reason = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
    return InputError(f"'{path}' cannot be read: {reason}")
