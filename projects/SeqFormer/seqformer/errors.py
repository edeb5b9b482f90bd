"""What the user's input can do wrong, and how a command says so."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["InputError", "exit_on_bad_input"]


class InputError(ValueError):
    """Input that cannot be used; the message says what is wrong, where, and what to do."""


@contextmanager
def exit_on_bad_input() -> Iterator[None]:
    """For ``main()`` functions: an :class:`InputError` becomes one line on stderr and exit code 2."""
    try:
        yield
    except InputError as error:
        print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        sys.exit(2)
