"""What the user's input can do wrong, and how a command says so."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

__all__ = ["InputError", "exit_on_bad_input", "name_flags"]


class InputError(ValueError):
    """Input that cannot be used; the message says what is wrong, where, and what to do.

    A message names an argument of the function in backquotes, such as `threshold`; see :func:`name_flags`.
    """


@contextmanager
def exit_on_bad_input() -> Iterator[None]:
    """For ``main()`` functions: an :class:`InputError` becomes one line on stderr and exit code 2."""
    try:
        yield
    except InputError as error:
        print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        sys.exit(2)


@contextmanager
def name_flags(flags: Mapping[str, str]) -> Iterator[None]:
    """For commands: an :class:`InputError` names the command's flags instead of the library's arguments.

    Args:
        flags: by argument, such as ``{"threshold": "--confidence-threshold"}``.
    """
    try:
        yield
    except InputError as error:
        message = re.sub(r"`(\w+)`", lambda name: flags.get(name[1], name[0]), str(error))
        raise InputError(message) from error
