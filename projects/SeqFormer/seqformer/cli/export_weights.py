"""Exports a trained model as a small file.

    python tools/export_weights.py output/pedestrians/model_final.pth model.safetensors --classes person \\
        --config-file configs/pedestrians/seqformer_effnet_lite0.yaml --license Apache-2.0

Weights are stored in half precision with the class names, without the state of the optimizer. With
--config-file the file is a complete model, which needs no config: seqformer predict --model model.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

from seqformer.checkpoints import export_weights, trust_checkpoints
from seqformer.cli.program import add_overwrite_argument, add_trust_argument, check_new, program
from seqformer.config import load_config

__all__ = ["add_arguments", "main", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", help="checkpoint from training, .pth, or its address")
    parser.add_argument("output", type=Path, help="the .safetensors file to write")
    parser.add_argument(
        "--classes", nargs="+", required=True, metavar="NAME", help="class names, in the order of the model"
    )
    parser.add_argument("--average", action="store_true", help="export the moving average (SOLVER.EMA)")
    add_overwrite_argument(parser)
    add_trust_argument(parser)
    parser.add_argument("--config-file", metavar="FILE", help="config to save in the file")
    parser.add_argument(
        "--license", default="", metavar="NAME", help="licence to save in the file, such as Apache-2.0"
    )
    parser.add_argument(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="KEY VALUE",
        help="config overrides; must be the last option",
    )


def run(args: argparse.Namespace) -> None:
    check_new(args.output, args.overwrite)
    cfg = load_config(args.config_file, args.opts) if args.config_file else None
    with trust_checkpoints(args.trust_checkpoint):
        export_weights(
            args.checkpoint, args.output, args.classes, average=args.average, cfg=cfg, license=args.license
        )
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.1f} MB")


main = program(add_arguments, run, __doc__)
