"""Helpers for readers: reporting problems and checking JSON values."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterable
from typing import Any, TypeGuard

from seqformer.errors import InputError

__all__ = [
    "LARGEST_FRAME",
    "Repeated",
    "Report",
    "as_integer",
    "check_names",
    "is_integer",
    "is_number",
    "named",
    "objects",
    "quoted",
    "refuse",
]

LARGEST_FRAME = 2**29  # pixels; pycocotools counts pixels in 32 bits
_LONGEST = 40  # characters of a value in a message

Report = Callable[[str], None]
"""Called with each problem as one line of text. If it does not raise, the reader skips the item."""


def refuse(problem: str) -> None:
    """A :data:`Report` that raises, for readers that stop at the first problem.

    Raises:
        InputError: always.
    """
    raise InputError(problem)


def is_integer(value: Any) -> TypeGuard[int]:
    """Whether a value is an integer of at most 64 bits, as arrays of ids need."""
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def as_integer(value: Any) -> Any:
    """Returns 64 for 64.0, which pandas and JavaScript write, and any other value as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def quoted(value: Any) -> str:
    """Returns a value for a message: strings in quotes, and long ones shortened."""
    try:
        text = ascii(value)
    except RecursionError:
        return "a list in a list in a list ..."
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def named(id_: Any) -> str:
    """Returns an id for the beginning of a message: as :func:`quoted`, without the quotes of a string."""
    return quoted(id_).strip("'")


class Repeated:
    """Reports a problem that many items have only once, and the number of the others at the end.

    Args:
        report: called with each line.
    """

    def __init__(self, report: Report):
        self._report = report
        self._texts: dict[str, str] = {}  # by kind
        self._counts: dict[str, int] = {}  # of the others

    def __call__(self, where: str, text: str, kind: str | None = None) -> None:
        """Reports a problem.

        Args:
            where: the item.
            text: the problem.
            kind: the same for problems that differ only in a value; by default ``text``.
        """
        kind = kind or text
        if kind in self._texts:
            self._counts[kind] = self._counts.get(kind, 0) + 1
        else:
            self._texts[kind] = text
            self._report(f"{where}: {text}")

    def finish(self, source: str, items: str) -> None:
        """Reports how many more items have each problem.

        Args:
            source: the file.
            items: what the items are, plural.
        """
        for kind, count in self._counts.items():
            self._report(f"{source}: the same in {count} more {items}: {self._texts[kind]}")


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
