"""Draws training clips as the model sees them: sampled, warped, augmented, with masks, boxes and ids.

    python tools/visualize_data.py --config-file configs/ytvis19/seqformer_R50_joint.yaml --output clips \
        DATASETS.TRAIN "('ytvis:my/train.json:my/frames',)" DATASETS.TRAIN_RATIOS "()"

A picture a clip, its frames in columns. The colour of an instance is the same in all of them; an instance
that a frame does not show (id -1) has no box there.
"""

from __future__ import annotations

import argparse
from itertools import chain, islice
from pathlib import Path
from typing import Any

import seqformer  # noqa: F401  before Detectron2, one of whose warnings it hides

# isort: split
import cv2
import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.structures import Instances
from PIL import Image

from seqformer.config import load_config
from seqformer.data import build_train_loader, resolve_datasets
from seqformer.errors import InputError, exit_on_bad_input
from seqformer.visualization import instance_color

_GAP = 4  # pixels between frames
_OPACITY = 0.4


def draw_clip(clip: dict[str, Any], class_names: list[str], image_format: str = "RGB") -> np.ndarray:
    """The frames of a clip side by side.

    Args:
        clip: of a training mapper: image and instances, see seqformer.data.YTVISDatasetMapper.
        class_names: by class.
        image_format: order of the clip's channels, "RGB" or "BGR".

    Returns:
        (h, T * (w + gap) - gap, 3) uint8 RGB.
    """
    columns = []
    for image, instances in zip(clip["image"], clip["instances"], strict=True):
        frame = image.numpy().transpose(1, 2, 0)
        frame = np.ascontiguousarray(frame[..., ::-1] if image_format == "BGR" else frame)
        _draw_instances(frame, instances, class_names)
        columns += [frame, np.full((len(frame), _GAP, 3), 255, dtype=np.uint8)]
    return np.concatenate(columns[:-1], axis=1)


def _draw_instances(frame: np.ndarray, instances: Instances, class_names: list[str]) -> None:
    """Draws visible instances on a frame, in place: tinted masks, then boxes and labels such as "#2 dog"."""
    masks = instances.gt_masks.tensor.numpy()
    visible = [n for n, identity in enumerate(instances.gt_ids.tolist()) if identity >= 0]
    for n in visible:
        tint = _OPACITY * np.array(instance_color(n))
        frame[masks[n]] = np.rint((1 - _OPACITY) * frame[masks[n]] + tint).astype(np.uint8)
    scale = max(0.35, min(frame.shape[:2]) / 900)
    for n in visible:
        left, top, right, bottom = instances.gt_boxes.tensor[n].int().tolist()
        color = instance_color(n)
        cv2.rectangle(frame, (left, top), (right - 1, bottom - 1), color, 1)
        label = f"#{n} {class_names[instances.gt_classes[n]]}"
        size, below = cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
        place = (left, max(top - below, size[1]))
        cv2.rectangle(
            frame, (place[0], place[1] - size[1]), (place[0] + size[0], place[1] + below), color, -1
        )
        cv2.putText(frame, label, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (16, 16, 16), 1, cv2.LINE_AA)


def visualize(args: argparse.Namespace) -> None:
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


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--output", required=True, help="a folder for the pictures")
    parser.add_argument("--count", type=int, default=8, help="clips to draw (default: %(default)s)")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config keys to override")
    args = parser.parse_args(argv)
    with exit_on_bad_input():
        visualize(args)


if __name__ == "__main__":
    main()
