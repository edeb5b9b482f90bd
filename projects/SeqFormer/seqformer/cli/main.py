"""The ``seqformer`` command with its subcommands, such as ``seqformer predict video.mp4``."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from functools import partial
from types import ModuleType

from seqformer.cli.program import program
from seqformer.errors import InputError, exit_on_bad_input
from seqformer.version import __version__

__all__ = ["main"]

# Commands and their summaries. A module is imported only when its command is used, because most of them
# import PyTorch, which takes seconds.
_COMMANDS = {
    "predict": "segment and track the instances of a video",
    "train": "train a model, or evaluate it with --eval-only",
    "evaluate": "compute AP, HOTA, IDF1 and ID switches of a results.json",
    "figure": "draw the paper's figures for a video, or compare results",
    "check": "list all problems of a dataset",
    "convert": "convert datasets, results and checkpoints",
    "export": "export a model as ONNX or as PyTorch's exported program",
    "models": "list the trained models for --model",
    "env": "report installed and missing packages",
}


def _add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    parser.add_argument("--version", action="version", version=f"seqformer {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in _COMMANDS.items():
        subparser = commands.add_parser(
            name, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if name == command:
            module = _import_command(name)
            subparser.description = module.__doc__
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)


def _import_command(name: str) -> ModuleType:
    try:
        return importlib.import_module(f"seqformer.cli.{name}")
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise InputError(
            f"`seqformer {name}` needs the package '{package}', which is not installed: "
            "run `seqformer env` to see how to install it"
        ) from error


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command. Bad input is reported in one line, with exit code 2."""
    argv = sys.argv[1:] if argv is None else list(argv)
    command = argv[0] if argv else ""
    with exit_on_bad_input():
        program(
            partial(_add_arguments, command=command),
            lambda args: args.run(args),
            "Segments and tracks the instances of videos with SeqFormer.",
            prog="seqformer",
        )(argv)
