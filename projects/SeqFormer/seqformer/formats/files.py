"""JSON in, and files out that are whole or not there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from seqformer.errors import InputError

__all__ = ["new_folder", "read_json", "replaced_when_complete", "write_json"]


def read_json(path: str | Path) -> Any:
    """Reads a JSON file.

    Raises:
        InputError: if it is missing, unreadable or no JSON.
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


@contextmanager
def replaced_when_complete(path: str | Path) -> Iterator[Path]:
    """A path to write a file to, which takes the place of ``path`` when the block ends without an error.

    Raises:
        InputError: if it cannot be written.

    Example:
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
def new_folder(path: str | Path) -> Iterator[Path]:
    """A folder to write to, which gets the name ``path`` when the block ends without an error.

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


def write_json(path: str | Path, value: Any) -> None:
    """Writes a JSON file; under its name there is never a half-written one.

    Raises:
        InputError: if it cannot be written.
    """
    with replaced_when_complete(path) as part, open(part, "w", encoding="utf-8") as file:
        json.dump(value, file)
