"""What the user's input can do wrong, and how a command says so."""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral, Real

__all__ = ["ArgumentError", "InputError", "check_number", "exit_on_bad_input"]


class InputError(ValueError):
    """Input that cannot be used; the message says what is wrong, where, and what to do."""


class ArgumentError(InputError):
    """An argument that cannot be used; the message begins with its name.

    Attributes:
        argument: the name.
        problem: the rest of the message, such as "must be at least 1, not 0".
    """

    def __init__(self, argument: str, problem: str):
        super().__init__(argument, problem)
        self.argument = argument
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.argument} {self.problem}"

    def renamed(self, name: str) -> ArgumentError:
        """The same error under the name that the user knows, such as a config key or a flag."""
        return ArgumentError(name, self.problem)


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
    """Checks the type and the bounds of an argument.

    Raises:
        ArgumentError: if ``value`` is not a number, or not an integer where one is wanted, or out of bounds.

    Example:
        >>> check_number("threshold", 0.5, at_least=0, at_most=1)
    """
    if isinstance(value, bool) or not isinstance(value, Integral if integer else Real):
        raise ArgumentError(argument, f"must be {'an integer' if integer else 'a number'}, not {value!r}")
    bounds = {
        "at least": (operator.ge, at_least),
        "above": (operator.gt, above),
        "at most": (operator.le, at_most),
        "below": (operator.lt, below),
    }
    given = {words: bound for words, bound in bounds.items() if bound[1] is not None}
    if not all(compare(value, bound) for compare, bound in given.values()):
        wanted = " and ".join(f"{words} {bound:g}" for words, (_, bound) in given.items())
        raise ArgumentError(argument, f"must be {wanted}, not {value}")


@contextmanager
def exit_on_bad_input() -> Iterator[None]:
    """For ``main()`` functions: an :class:`InputError` becomes one line on stderr and exit code 2."""
    try:
        yield
    except InputError as error:
        print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        sys.exit(2)
