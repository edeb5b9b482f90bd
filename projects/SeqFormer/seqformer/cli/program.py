"""What every command does around its work: parse arguments, report bad input in one line, exit."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Protocol

from seqformer.errors import exit_on_bad_input

__all__ = ["Program", "program"]


class Program(Protocol):
    """Runs a command with the given arguments, by default those of the process."""

    def __call__(self, argv: Sequence[str] | None = None) -> None: ...


def program(
    add_arguments: Callable[[argparse.ArgumentParser], None],
    run: Callable[[argparse.Namespace], int | None],
    description: str | None,
    prog: str | None = None,
) -> Program:
    """Makes the ``main`` of a command that is a program of its own.

    Args:
        add_arguments: adds the command's arguments to a parser.
        run: does the work and returns an exit code, None for 0. An InputError is reported in one line, with
            exit code 2.
        description: for --help, usually the module's docstring.
        prog: the name of the program, where that of the file would mislead.
    """

    def main(argv: Sequence[str] | None = None) -> None:
        parser = argparse.ArgumentParser(
            prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        add_arguments(parser)
        args = parser.parse_args(argv)
        with exit_on_bad_input():
            if code := run(args):
                sys.exit(code)

    return main
