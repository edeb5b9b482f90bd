"""Options of the commands that run a trained model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode

from seqformer import model_zoo
from seqformer.checkpoints import read_config
from seqformer.cli.program import add_trust_argument
from seqformer.inference import model_config

__all__ = ["MODEL_FLAGS", "add_model_arguments", "load_model_config", "say_notice"]

MODEL_FLAGS = {"config_file": "--config-file", "model": "--model", "weights": "--weights"}


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --model, --config-file, --weights, --trust-checkpoint and --opts."""
    parser.add_argument(
        "--model",
        metavar="NAME",
        help="a model listed by `seqformer models`, or a .safetensors file or address with its config in it "
        "(default: the shipped model)",
    )
    parser.add_argument("--config-file", metavar="FILE", help="config of the model, instead of --model")
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="weights that match the config: .pth, .safetensors, or an address (https://..., "
        "hf://OWNER/REPO/FILE, gdrive://ID) (default: MODEL.WEIGHTS of --opts, those of --model, or "
        "MODEL.WEIGHTS of the config)",
    )
    add_trust_argument(parser)
    parser.add_argument(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="KEY VALUE",
        help="config overrides; must be the last option",
    )


def load_model_config(args: argparse.Namespace) -> CfgNode:
    """Returns the config that the options choose. Weights without any config get that of the shipped model.

    Raises:
        InputError: if the model cannot be used.
    """
    config_file = args.config_file
    if args.weights and not (config_file or args.model) and read_config(args.weights) is None:
        config_file = model_zoo.get_config_file(model_zoo.SHIPPED_MODEL)
    return model_config(config_file, args.weights, args.opts, model=args.model)


def say_notice(args: argparse.Namespace, paths: Sequence[str | Path]) -> None:
    """Says on stderr that the shipped model is for one street, if it was not chosen and the video is another.

    Args:
        args: the options.
        paths: the files of the video or videos; empty for a camera.
    """
    chosen = args.model or args.config_file or args.weights or "MODEL.WEIGHTS" in args.opts[::2]
    if not chosen and not (paths and all(map(model_zoo.is_shipped_video, paths))):
        print(f"note: {model_zoo.SHIPPED_NOTICE}: --model {model_zoo.SUGGESTED_MODEL}", file=sys.stderr)
