"""Measures whether attention follows the instances of an annotated dataset.

    python benchmarks/attention.py --config-file configs/pedestrians/seqformer_effnet_lite0.yaml \
        --weights model.safetensors --dataset val.json --images val/JPEGImages

By default the shipped pedestrian model is measured. Videos are cut into clips that do not overlap.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import seqformer  # noqa: F401  before Detectron2, to hide one of its warnings

# isort: split
from tqdm import tqdm

from seqformer.errors import InputError, exit_on_bad_input
from seqformer.evaluation.attention import AttentionFigures, AttentionMeasure
from seqformer.formats.ytvis import read_ytvis
from seqformer.inference import VideoPredictor, model_config
from seqformer.model_zoo import SHIPPED_MODEL, get_config_file
from seqformer.video import ImageSequenceReader


def measure(args: argparse.Namespace) -> AttentionFigures:
    """Traces all clips of the dataset.

    Raises:
        InputError: if model or dataset cannot be used.
    """
    if args.clip_length < 1 or (args.limit is not None and args.limit < 1):
        raise InputError("--clip-length and --limit must be at least 1")
    dataset = read_ytvis(args.dataset, image_root=args.images)
    if dataset.annotations is None:
        raise InputError(f"{args.dataset}: no annotations to compare with")
    predictor = VideoPredictor(model_config(args.config_file, args.weights, args.opts))
    total = AttentionMeasure()
    videos = list(dataset.videos.values())[: args.limit]
    for video in tqdm(videos, "tracing", unit=" videos", disable=None):
        frames = list(ImageSequenceReader([args.images / name for name in video.names], keep_order=True))
        if frames[0].shape[:2] != (video.height, video.width):
            raise InputError(
                f"{args.dataset}: video {video.id}: the size of its frames differs from the JSON"
            )
        truths = [a.masks for a in dataset.annotations if a.video.id == video.id and not a.crowd]
        for start in range(0, video.length, args.clip_length):
            clip = slice(start, start + args.clip_length)
            total.update(predictor.trace(frames[clip]), [masks[clip] for masks in truths])
    return total.figures()


def report(figures: AttentionFigures) -> str:
    """Returns Markdown tables."""
    lines = [
        f"{figures.predicted} of {figures.instances} instances were predicted (space-time IoU >= 0.5) "
        f"and are measured; {figures.partly_hidden} of them are hidden in some frames of their clip.",
        "",
        "| decoder layer | points inside the box | attention inside the box | weight of a visible frame | "
        "of a hidden frame |",
        "|---|---|---|---|---|",
    ]
    for layer, (points, attention, visible, hidden) in enumerate(
        zip(
            figures.points_inside,
            figures.weight_inside,
            figures.weight_visible,
            figures.weight_hidden,
            strict=True,
        ),
        start=1,
    ):
        shares = f"{100 * points:.1f} % | {100 * attention:.1f} %"
        lines.append(f"| {layer} | {shares} | {visible:.2f} | {hidden:.2f} |")
    lines += [
        "",
        "Temporal weights are relative to equal weights of all frames of a clip.",
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", default=str(get_config_file(SHIPPED_MODEL)), metavar="FILE")
    parser.add_argument("--weights", metavar="FILE")
    parser.add_argument(
        "--dataset", type=Path, required=True, metavar="JSON", help="dataset in YouTube-VIS format"
    )
    parser.add_argument("--images", type=Path, required=True, metavar="FOLDER", help="folder of its frames")
    parser.add_argument("--clip-length", type=int, default=20, help="frames per clip (default: %(default)s)")
    parser.add_argument("--limit", type=int, metavar="N", help="use only the first N videos")
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE")
    args = parser.parse_args(argv)
    with exit_on_bad_input():
        print(report(measure(args)))


if __name__ == "__main__":
    main()
