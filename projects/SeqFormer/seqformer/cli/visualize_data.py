"""Draws training clips after sampling and augmentation, with masks, boxes and ids.

    python tools/visualize_data.py --config-file configs/ytvis19/seqformer_R50_joint.yaml --output clips \\
        DATASETS.TRAIN "('ytvis:my/train.json:my/frames',)" DATASETS.TRAIN_RATIOS "()"

Writes one picture per clip, with its frames side by side. An instance has the same colour in all frames, and
no box in frames where it is not visible (id -1).
"""

from __future__ import annotations

import argparse
from itertools import chain, islice
from pathlib import Path

from detectron2.data import MetadataCatalog
from PIL import Image

from seqformer.cli.program import program
from seqformer.config import load_config
from seqformer.data import build_train_loader, resolve_datasets
from seqformer.errors import InputError
from seqformer.visualization.clips import draw_clip

__all__ = ["add_arguments", "main", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config-file", required=True, metavar="FILE", help="config of the training")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="folder for the pictures")
    parser.add_argument("--count", type=int, default=8, help="number of clips (default: %(default)s)")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config overrides")


def run(args: argparse.Namespace) -> None:
    """Draws the clips and prints the paths of the pictures.

    Raises:
        InputError: if the config or a dataset cannot be used, or a picture cannot be written.
    """
    cfg = load_config(args.config_file, args.opts)
    cfg.DATASETS.TRAIN = resolve_datasets(cfg.DATASETS.TRAIN)
    cfg.SOLVER.IMS_PER_BATCH = 1
    cfg.DATALOADER.NUM_WORKERS = 0
    loader = build_train_loader(cfg)
    names = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).thing_classes
    output = Path(args.output)
    try:
        output.mkdir(parents=True, exist_ok=True)
        for number, clip in enumerate(islice(chain.from_iterable(loader), args.count)):
            source = f"video{clip['video_id']}" if "video_id" in clip else f"image{clip['image_id']}"
            path = output / f"{number:03d}_{source}.png"
            Image.fromarray(draw_clip(clip, names, cfg.INPUT.FORMAT)).save(path)
            print(path)
    except OSError as error:
        raise InputError(f"'{output}' cannot be written: {error.strerror}") from error


main = program(add_arguments, run, __doc__)
