"""Errors in the user's input, and how commands report them."""

from __future__ import annotations

import operator
import re
import sys
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral, Real

__all__ = ["DivergedError", "InputError", "check_number", "exit_on_bad_input", "name_flags", "one_line"]

_LONGEST_START, _LONGEST_END = 3000, 1000  # characters of a message


class InputError(ValueError):
    """Raised for input that cannot be used. The message says what is wrong, where, and what to do.

    Messages quote function arguments in backticks, such as `threshold`; see :func:`name_flags`.
    """


class DivergedError(InputError):
    """Raised in training when losses, predictions or weights are not finite. The message says which."""


def one_line(text: object) -> str:
    """Returns text for a terminal: one line, without control characters and lone surrogates, not very long.

    Names in files from others may contain all of these.
    """
    words = " ".join(str(text).splitlines())
    if len(words) > _LONGEST_START + _LONGEST_END:
        words = f"{words[:_LONGEST_START]} ... {words[-_LONGEST_END:]}"
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if unicodedata.category(character).startswith("C")
        else character
        for character in words
    )


@contextmanager
def exit_on_bad_input() -> Iterator[None]:
    """Turns an :class:`InputError` into one line on stderr and exit code 2; for ``main()`` functions."""
    try:
        yield
    except InputError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)


@contextmanager
def name_flags(flags: Mapping[str, str]) -> Iterator[None]:
    """Replaces argument names in the message of an :class:`InputError` by flags or config keys.

    Args:
        flags: flag or key by argument, such as ``{"threshold": "--confidence-threshold"}``.
    """
    try:
        yield
    except InputError as error:
        message = re.sub(r"`(\w+)`", lambda name: flags.get(name[1], name[0]), str(error))
        raise InputError(message) from error


def check_number(
    argument: str,
    value: object,
    *,
    integer: bool = False,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> None:
    """Checks the type and bounds of an argument.

    Raises:
        InputError: if ``value`` is not a number (with ``integer``, not an integer) or is out of bounds.

    Examples:
        >>> check_number("threshold", 0.5, at_least=0, at_most=1)
    """
    if isinstance(value, bool) or not isinstance(value, Integral if integer else Real):
        kind = "an integer" if integer else "a number"
        raise InputError(f"`{argument}` must be {kind}, not {value!r}")
    bounds = {
        "at least": (operator.ge, at_least),
        "above": (operator.gt, above),
        "at most": (operator.le, at_most),
        "below": (operator.lt, below),
    }
    given = {words: (compare, bound) for words, (compare, bound) in bounds.items() if bound is not None}
    if not all(compare(value, bound) for compare, bound in given.values()):
        allowed = " and ".join(f"{words} {bound:g}" for words, (_, bound) in given.items())
        raise InputError(f"`{argument}` must be {allowed}, not {value}")
