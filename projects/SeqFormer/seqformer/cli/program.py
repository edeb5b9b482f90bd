"""The common part of all commands: parses arguments, reports bad input in one line, and exits."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from seqformer.errors import InputError, exit_on_bad_input

__all__ = [
    "Program",
    "add_outside_argument",
    "add_overwrite_argument",
    "add_trust_argument",
    "check_new",
    "program",
]


class Program(Protocol):
    """Runs a command with the given arguments, by default those of the process."""

    def __call__(self, argv: Sequence[str] | None = None) -> None: ...


def add_trust_argument(parser: argparse.ArgumentParser) -> None:
    """Adds --trust-checkpoint, the argument of :func:`seqformer.checkpoints.trust_checkpoints`."""
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="let weights execute code when they are loaded, as pickles of other projects do",
    )


def add_overwrite_argument(parser: argparse.ArgumentParser) -> None:
    """Adds --overwrite, for :func:`check_new`."""
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")


def add_outside_argument(parser: argparse.ArgumentParser) -> None:
    """Adds --allow-outside, the argument of :func:`seqformer.formats.ytvis.allow_outside`."""
    parser.add_argument(
        "--allow-outside",
        action="store_true",
        help="let the dataset name frames outside the folder of frames",
    )


def check_new(path: Path | None, overwrite: bool) -> None:
    """Checks that an output does not replace a file without being told to.

    Args:
        path: the file; None if there is none.
        overwrite: whether it may be replaced.

    Raises:
        InputError: if the file exists and may not be replaced.
    """
    if path is not None and not overwrite and path.is_file():
        raise InputError(f"'{path}' exists: choose another name, or give --overwrite to replace it")


def program(
    add_arguments: Callable[[argparse.ArgumentParser], None],
    run: Callable[[argparse.Namespace], int | None],
    description: str | None,
    prog: str | None = None,
) -> Program:
    """Creates the ``main`` function of a command that can run on its own.

    Args:
        add_arguments: adds the command's arguments to a parser.
        run: runs the command and returns an exit code, None for 0. An InputError is reported in one line,
            with exit code 2.
        description: description in --help, usually the module's docstring.
        prog: name of the program in --help; by default that of the file.
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
