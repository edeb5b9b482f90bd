"""Builds a YouTube-VIS-format dataset of pedestrians from one fixed-camera video.

    python tools/make_pedestrians.py --video vtest.avi --output datasets/pedestrians

People who touch nobody are cut out by background subtraction and followed; videos are composed of them over
the street without people and over real frames. The training split uses the frames before --split-frame only,
the validation split those from it on only. vtest.avi comes with OpenCV's documentation (on Debian:
``apt-get download opencv-doc && dpkg -x opencv-doc_*.deb opencv-doc``).
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as mask_codec
from tqdm import tqdm

from seqformer.data.pedestrians.compose import Composer, Video
from seqformer.data.pedestrians.cutouts import Scene, read_video
from seqformer.errors import InputError, exit_on_bad_input

REAL_SHARE = 0.45  # of the videos stand over real frames
JPEG_QUALITY = 92


@dataclass
class Split:
    """What one worker needs to make the videos of a split."""

    composer: Composer
    folder: Path
    seed: int


_split: Split  # set before workers are forked, so that frames are shared and not sent


def make_video(number: int) -> tuple[dict, list[dict]]:
    """Composes and stores one video; returns its JSON entry and annotations, without their own ids."""
    rng = np.random.default_rng([_split.seed, number])
    video = _split.composer.compose(rng, real=bool(rng.random() < REAL_SHARE))
    name = f"{number:05d}"
    folder = _split.folder / "JPEGImages" / name
    folder.mkdir(parents=True)
    files = []
    for t, frame in enumerate(video.frames):
        files.append(f"{name}/{t:05d}.jpg")
        if not cv2.imwrite(str(folder / f"{t:05d}.jpg"), frame, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]):
            raise InputError(f"{folder}: a frame cannot be written")
    length, height, width = video.frames.shape[:3]
    entry = {"id": number + 1, "width": width, "height": height, "length": length, "file_names": files}
    return entry, list(annotate(video, number + 1))


def annotate(video: Video, video_id: int) -> Iterator[dict]:
    """YouTube-VIS annotations of a video."""
    length, height, width = video.frames.shape[:3]
    for mask in video.masks.values():
        annotation: dict = {
            "video_id": video_id,
            "category_id": 1,
            "iscrowd": 0,
            "height": height,
            "width": width,
            "length": length,
            "segmentations": [],
            "bboxes": [],
            "areas": [],
        }
        for frame in mask:
            if not frame.any():
                values = (None, None, None)
            else:
                rle = mask_codec.encode(np.asfortranarray(frame, dtype=np.uint8))
                box = mask_codec.toBbox(rle).tolist()
                area = int(mask_codec.area(rle))
                values = ({"size": list(rle["size"]), "counts": rle["counts"].decode()}, box, area)
            for key, value in zip(("segmentations", "bboxes", "areas"), values, strict=True):
                annotation[key].append(value)
        yield annotation


def make_split(split: Split, videos: int, processes: int, title: str) -> None:
    """Makes all videos of a split and its JSON."""
    global _split
    _split = split
    dataset: dict = {
        "info": {"description": "people cut out of a street video, recomposed"},
        "categories": [{"id": 1, "name": "person", "supercategory": "person"}],
        "videos": [],
        "annotations": [],
    }
    with get_context("fork").Pool(processes) as pool:
        for entry, annotations in tqdm(
            pool.imap(make_video, range(videos)), total=videos, desc=title, unit="video"
        ):
            dataset["videos"].append(entry)
            for annotation in annotations:
                dataset["annotations"].append({"id": len(dataset["annotations"]) + 1, **annotation})
    split.folder.with_suffix(".json").write_text(json.dumps(dataset))


def make_pedestrians(args: argparse.Namespace) -> None:
    output: Path = args.output
    if output.exists():
        raise InputError(f"'{output}' exists: remove it or choose another --output")
    height, width = args.size
    frames = read_video(args.video)
    if not args.frames * 2 < args.split_frame < len(frames) - args.frames * 2:
        raise InputError(
            f"'{args.video}' has {len(frames)} frames: --split-frame {args.split_frame} must leave more than "
            f"{args.frames * 2} on both sides"
        )
    part = output.with_name(output.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"'{output}' cannot be written: {error.strerror}") from error
    try:
        for number, (name, share, videos) in enumerate(
            (
                ("train", frames[: args.split_frame], args.train_videos),
                ("val", frames[args.split_frame :], args.val_videos),
            )
        ):
            composer = Composer(Scene(share), (height, width), args.frames)
            if not composer.tracks:
                raise InputError(f"'{args.video}': nobody can be followed in the {name} part")
            make_split(Split(composer, part / name, args.seed * 2 + number), videos, args.processes, name)
        part.rename(output)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def parse_size(text: str) -> tuple[int, int]:
    try:
        height, width = (int(side) for side in text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not HEIGHTxWIDTH") from None
    return height, width


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--video", type=Path, required=True, help="a video of a fixed camera")
    parser.add_argument("--output", type=Path, required=True, help="a folder that does not exist yet")
    parser.add_argument("--split-frame", type=int, default=500, help="the validation split's first frame")
    parser.add_argument("--train-videos", type=int, default=600)
    parser.add_argument("--val-videos", type=int, default=40)
    parser.add_argument("--frames", type=int, default=20, help="frames of a video")
    parser.add_argument("--size", type=parse_size, default=(432, 576), metavar="HxW", help="of the frames")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args(argv)
    with exit_on_bad_input():
        make_pedestrians(args)


if __name__ == "__main__":
    main()
