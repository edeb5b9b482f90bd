"""Converts the annotations of a YouTube-VIS JSON to formats of annotation tools and other benchmarks.

    seqformer convert annotations coco --dataset train.json --output frames.json
    seqformer convert annotations labelme --dataset train.json --output labelme/ --frames frames/

The formats are those of `seqformer convert results`, whose --help describes them. `seqformer convert dataset`
reads them back.
"""

from __future__ import annotations

import argparse

from seqformer.cli.convert_results import add_formats, run
from seqformer.cli.program import program

__all__ = ["add_arguments", "main", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_formats(parser)


main = program(add_arguments, run, __doc__)
