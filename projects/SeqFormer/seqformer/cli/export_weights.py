"""Exports a trained model as a small file.

    python tools/export_weights.py output/pedestrians/model_final.pth model.safetensors --classes person

Weights are stored in half precision with the class names, without the state of the optimizer.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from seqformer.checkpoints import export_weights, trust_checkpoints
from seqformer.cli.program import add_trust_argument, program

__all__ = ["add_arguments", "main", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, help="checkpoint from training, .pth")
    parser.add_argument("output", type=Path, help="the .safetensors file to write")
    parser.add_argument(
        "--classes", nargs="+", required=True, metavar="NAME", help="class names, in the order of the model"
    )
    parser.add_argument("--average", action="store_true", help="export the moving average (SOLVER.EMA)")
    add_trust_argument(parser)


def run(args: argparse.Namespace) -> None:
    with trust_checkpoints(args.trust_checkpoint):
        export_weights(args.checkpoint, args.output, args.classes, average=args.average)
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.1f} MB")


main = program(add_arguments, run, __doc__)
