"""JSON and XML files, natural order of file names, and atomic writing of files and folders."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PureWindowsPath
from typing import Any
from xml.etree import ElementTree

from filelock import FileLock, Timeout

from seqformer.errors import InputError

__all__ = [
    "PICTURE_SUFFIXES",
    "is_inside",
    "locked",
    "natural_order",
    "new_folder",
    "read_content",
    "read_json",
    "read_xml",
    "replaced_when_complete",
    "write_json",
]

PICTURE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def natural_order(path: str | Path) -> tuple[list[tuple[str, int]], str]:
    """Returns a sort key in which 2 comes before 10, and case only breaks ties."""
    name = str(path)
    return [(text.lower(), int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", name)], name


def is_inside(name: str) -> bool:
    """Whether a name from a file is a possible file name inside its folder, on any operating system."""
    path = PureWindowsPath(name)  # its separators include that of POSIX
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return (
        bool(path.name) and not path.drive and not path.root and ".." not in path.parts and "\0" not in name
    )


def read_json(path: str | Path) -> Any:
    """Reads a JSON file.

    Raises:
        InputError: if the file is missing, unreadable or not JSON.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        raise InputError(f"no file '{path}'") from None
    except OSError as error:
        raise InputError(f"cannot read '{path}': {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"'{path}' is not JSON: {error}") from error


def read_xml(path: str | Path) -> ElementTree.Element:
    """Reads an XML file and returns its root.

    Raises:
        InputError: if the file is missing, unreadable or not XML.
    """
    try:
        return ElementTree.parse(path).getroot()
    except FileNotFoundError:
        raise InputError(f"no file '{path}'") from None
    except OSError as error:
        raise InputError(f"cannot read '{path}': {error.strerror}") from error
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # LookupError: an unknown encoding
        raise InputError(f"'{path}' is not XML: {error}") from error


def read_content(source: Any, name: str) -> tuple[Any, str]:
    """Returns the content of ``source`` and a name for messages: its path, or ``name`` if it is content."""
    return (read_json(source), str(source)) if isinstance(source, str | Path) else (source, name)


def write_json(path: str | Path, value: Any) -> None:
    """Writes a JSON file atomically.

    Raises:
        InputError: if the file cannot be written.
    """
    with replaced_when_complete(path) as part, open(part, "w", encoding="utf-8") as file:
        json.dump(value, file)


@contextmanager
def replaced_when_complete(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path. The file replaces ``path`` when the block ends without an error.

    Raises:
        InputError: if the file cannot be written.

    Examples:
        >>> with replaced_when_complete("results.json") as part:
        ...     part.write_text("[]")
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(path)
    except OSError as error:
        raise InputError(f"cannot write '{path}': {error.strerror}") from error
    finally:
        with suppress(OSError):
            part.unlink()


@contextmanager
def locked(path: str | Path, what: str) -> Iterator[None]:
    """Keeps other processes from writing the same files. A lock ends with its process, even if it is killed.

    Args:
        path: an empty file that stands for the lock. It is removed in the end.
        what: what is locked, for the message, such as "OUTPUT_DIR 'output'".

    Raises:
        InputError: if another process holds the lock, or the file cannot be written.
    """
    lock = FileLock(path, timeout=0)
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise InputError(f"{what} is in use by another run: wait for its end or choose another") from None
    except OSError as error:
        raise InputError(f"{what} cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        with suppress(OSError):
            Path(path).unlink()
        lock.release()


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Yields a temporary folder. It is renamed to ``path`` when the block ends without an error.

    Raises:
        InputError: if ``path`` exists or cannot be written.
    """
    path = Path(path)
    if path.exists():
        raise InputError(f"'{path}' exists: remove it or choose another output")
    part = path.with_name(path.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        yield part
        part.rename(path)
    except OSError as error:
        raise InputError(f"cannot write '{path}': {error.strerror}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
