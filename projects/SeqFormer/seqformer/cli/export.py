"""Exports a model for use without this package.

    seqformer export output/street
    seqformer export output/street --format onnx pt2 --model model.safetensors

The output is a folder with the encoder (frames to encoded frames), the decoder (a clip of encoded frames to
classes, boxes and masks), and model.json, which says how to prepare frames and to read the results.
examples/onnx_video.py runs an ONNX export on a video.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from seqformer.checkpoints import trust_checkpoints
from seqformer.cli.model import MODEL_FLAGS, add_model_arguments, load_model_config
from seqformer.cli.program import program
from seqformer.deployment import FORMATS, export_model
from seqformer.errors import InputError, name_flags
from seqformer.inference import VideoPredictor

__all__ = ["add_arguments", "main", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("output", type=Path, metavar="FOLDER", help="the folder to write; must not exist")
    parser.add_argument(
        "--format",
        nargs="+",
        choices=FORMATS,
        default=["onnx"],
        help="onnx: ONNX with standard operators; pt2: PyTorch's exported program, which needs the compiled "
        "operators of this package; aoti: the same, compiled for this processor (default: onnx)",
    )
    add_model_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Exports the model."""
    if args.output.exists():
        raise InputError(f"'{args.output}' exists: remove it or choose another output")
    args.opts = [*args.opts, "MODEL.DEVICE", "cpu"]
    with name_flags({"formats": "--format", **MODEL_FLAGS}), trust_checkpoints(args.trust_checkpoint):
        cfg = load_model_config(args)
        if cfg.MODEL.SeqFormer.PRECISION != "fp32":
            raise InputError("an export is in fp32: add --opts MODEL.SeqFormer.PRECISION fp32")
        predictor = VideoPredictor(cfg)
        options = predictor.model.options
        if options.original:
            raise InputError(
                "an export pads frames, but RESULT_PROTOCOL 'original' does not: "
                "add --opts MODEL.SeqFormer.RESULT_PROTOCOL queries"
            )
        description = {
            "class_names": predictor.class_names,
            "channels": cfg.INPUT.FORMAT,
            "min_size": cfg.INPUT.MIN_SIZE_TEST,
            "max_size": cfg.INPUT.MAX_SIZE_TEST,
            "clip_length": options.clip_length,
            "clip_stride": options.clip_stride,
            "threshold": options.threshold,
            "num_instances": options.num_instances,
            "duplicate_iou": options.duplicate_iou,
        }
        export_model(
            predictor.model.network,
            args.output,
            list(dict.fromkeys(args.format)),
            num_candidates=options.num_candidates,
            description=description,
        )
    for path in sorted(args.output.iterdir()):
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


main = program(add_arguments, run, __doc__, prog="seqformer export")
