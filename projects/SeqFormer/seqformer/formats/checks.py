"""Helpers for readers: reporting problems and checking JSON values."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterable
from typing import Any, TypeGuard

from seqformer.errors import InputError

__all__ = ["Report", "check_names", "is_integer", "is_number", "objects", "refuse"]

Report = Callable[[str], None]
"""Called with each problem as one line of text. If it does not raise, the reader skips the item."""


def refuse(problem: str) -> None:
    """A :data:`Report` that raises, for readers that stop at the first problem.

    Raises:
        InputError: always.
    """
    raise InputError(problem)


def is_integer(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def check_names(names: Iterable[str]) -> None:
    """Checks that names can be written in text files and XML.

    Raises:
        InputError: if a name has control characters or is not valid Unicode.
    """
    for name in names:
        # The third are the two code points of each plane that are not characters.
        if any(
            unicodedata.category(character) in ("Cc", "Cs") or ord(character) & 0xFFFE == 0xFFFE
            for character in name
        ):
            raise InputError(f"the name {ascii(name)} has characters that cannot be written")


def objects(
    data: Any, key: str, source: str, report: Report, file_format: str = "YouTube-VIS"
) -> list[dict[str, Any]]:
    """Returns the JSON objects in the list ``data[key]``. Reports a missing list and other entries."""
    entries = data.get(key) if isinstance(data, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        report(f"{source}: '{key}' must be a list of objects; is it {file_format} format?")
        entries = entries if isinstance(entries, list) else []
    return [entry for entry in entries if isinstance(entry, dict)]
