"""Converts datasets, annotations, results and checkpoints between formats.

    seqformer convert dataset davis --annotations Annotations --frames JPEGImages --output davis.json
    seqformer convert annotations yolo --dataset train.json --output yolo/
    seqformer convert results coco --dataset val.json --results results.json --output frames.json
    seqformer convert checkpoint seqformer original.pth converted.pth

Each kind has its own --help.
"""

from __future__ import annotations

import argparse

from seqformer.cli import convert_annotations, convert_checkpoint, convert_dataset, convert_results
from seqformer.cli.program import program

__all__ = ["add_arguments", "main", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    for name, module, text in (
        ("dataset", convert_dataset, "convert annotations in another format to YouTube-VIS JSON"),
        (
            "annotations",
            convert_annotations,
            "convert the annotations of a YouTube-VIS JSON to another format",
        ),
        ("results", convert_results, "convert a results.json to another format"),
        ("checkpoint", convert_checkpoint, "convert a checkpoint of another layout"),
    ):
        command = kinds.add_parser(
            name,
            help=text,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(convert=module.run)


def run(args: argparse.Namespace) -> None:
    args.convert(args)


main = program(add_arguments, run, __doc__)
