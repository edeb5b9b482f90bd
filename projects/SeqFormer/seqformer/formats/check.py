"""Checks a dataset in YouTube-VIS format and lists everything that is wrong with it.

    python tools/check_dataset.py train.json train/JPEGImages [--decode]

One line a problem, with file, video, annotation and frame. What stops training and evaluation is found by the
code that reads the dataset for them; besides, the frames' sizes are compared with the JSON's (--decode reads
the whole pictures, which finds truncated ones), boxes with their masks, and annotations without a mask and
frames listed twice are reported. Exit code 0: no problems; 1: problems; 2: the JSON cannot be read at all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pycocotools import mask as mask_api
from tqdm import tqdm

from seqformer.errors import InputError, exit_on_bad_input
from seqformer.formats.files import read_json
from seqformer.formats.frames import frame_size
from seqformer.formats.ytvis import Annotation, Dataset, Report, Video, parse_dataset

_LEAST_OVERLAP = 0.5  # IoU of a box and the box around its mask


def check_dataset(json_file: Path, image_root: Path, decode: bool = False) -> tuple[Dataset, list[str]]:
    """Everything that is wrong with a dataset.

    Args:
        json_file: annotations in YouTube-VIS format.
        image_root: the folder that file names in the JSON are relative to.
        decode: read whole frames and not only their sizes.

    Returns:
        what could be read, and a line for every problem.

    Raises:
        InputError: if the JSON cannot be read, or the folder is missing.
    """
    if not image_root.is_dir():
        raise InputError(f"no folder '{image_root}'")
    problems: list[str] = []
    dataset = parse_dataset(read_json(json_file), str(json_file), problems.append, image_root)
    for video in tqdm(dataset.videos.values(), desc="frames", unit="video", disable=None):
        _check_frames(video, f"{json_file}: video {video.id}", image_root, decode, problems.append)
    for annotation in dataset.annotations or ():
        where = f"{json_file}: video {annotation.video.id}, annotation {annotation.id}"
        _check_annotation(annotation, where, problems.append)
    return dataset, problems


def _check_frames(video: Video, where: str, image_root: Path, decode: bool, report: Report) -> None:
    seen: dict[str, int] = {}
    for frame, name in enumerate(video.names):
        if name in seen:
            report(f"{where}, frame {frame}: '{name}' is frame {seen[name]}, too")
            continue
        seen[name] = frame
        path = image_root / name
        if not path.is_file():
            continue  # reported with the video
        try:
            height, width = frame_size(path, decode)
        except InputError as error:
            report(f"{where}, frame {frame}: {error}")
            continue
        if (height, width) != (video.height, video.width):
            report(
                f"{where}, frame {frame}: '{path}' is {width}x{height} pixels, the annotations are for "
                f"{video.width}x{video.height}"
            )


def _check_annotation(annotation: Annotation, where: str, report: Report) -> None:
    seen = [frame for frame, mask in enumerate(annotation.masks) if mask is not None]
    filled = [frame for frame in seen if mask_api.area(annotation.masks[frame])]
    if not filled:
        report(f"{where}: no frame has a mask")
    for frame in filled:
        box = annotation.boxes[frame] if annotation.boxes is not None else None
        if box is None:
            continue
        around = mask_api.toBbox(annotation.masks[frame]).tolist()
        if _overlap(box, around) < _LEAST_OVERLAP:
            report(
                f"{where}, frame {frame}: the box {box} is not that of the mask, {around} "
                "(x, y, width, height)"
            )


def _overlap(a: list[float], b: list[float]) -> float:
    """IoU of boxes xywh."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("json", type=Path, help="annotations in YouTube-VIS format")
    parser.add_argument("frames", type=Path, help="folder that file names in the JSON are relative to")
    parser.add_argument("--decode", action="store_true", help="read whole frames and not only their sizes")
    args = parser.parse_args(argv)
    with exit_on_bad_input():
        dataset, problems = check_dataset(args.json, args.frames, args.decode)
    for problem in problems:
        print(" ".join(problem.splitlines()))  # names in the JSON may hold anything
    content = (
        f"{len(dataset.videos)} videos, {sum(video.length for video in dataset.videos.values())} frames, "
        f"{len(dataset.annotations or ())} annotations, {len(dataset.names)} categories"
    )
    print(f"{len(problems) or 'no'} problem{'s' * (len(problems) != 1)}; usable: {content}")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
