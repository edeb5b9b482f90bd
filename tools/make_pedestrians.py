"""Builds a YouTube-VIS-format dataset of pedestrians from one fixed-camera video.

    python tools/make_pedestrians.py --video vtest.avi --output datasets/pedestrians

People who touch nobody are cut out by background subtraction and followed; videos are composed of them over
the street without people and over real frames. The training split uses the frames before --split-frame only,
the validation split those from it on only. vtest.avi comes with OpenCV's documentation (on Debian:
``apt-get download opencv-doc && dpkg -x opencv-doc_*.deb opencv-doc``).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from pedestrians.compose import Composer
from pedestrians.cutouts import Scene, read_video
from seqformer.errors import InputError, exit_on_bad_input
from seqformer.formats.files import new_folder
from seqformer.formats.rle import encode_masks
from seqformer.formats.ytvis import Dataset, Video, write_ytvis
from seqformer.structures import RLE

REAL_SHARE = 0.45  # of the videos stand over real frames
JPEG_QUALITY = 92


@dataclass
class Split:
    """What one worker needs to make the videos of a split."""

    composer: Composer
    folder: Path
    seed: int


_split: Split  # set before workers are forked, so that frames are shared and not sent


def make_video(number: int) -> tuple[Video, list[list[RLE | None]]]:
    """Composes and stores one video; returns its entry in the dataset and the masks of its instances."""
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
    height, width = video.frames.shape[1:3]
    return Video(number + 1, files, height, width), [encode_masks(mask) for mask in video.masks.values()]


def make_split(split: Split, videos: int, processes: int, title: str) -> None:
    """Makes all videos of a split and its JSON."""
    global _split
    _split = split
    dataset = Dataset({1: "person"}, {}, [])
    with get_context("fork").Pool(processes) as pool:
        for video, instances in tqdm(
            pool.imap(make_video, range(videos)), total=videos, desc=title, unit="video"
        ):
            dataset.videos[video.id] = video
            for masks in instances:
                dataset.annotate(video, 1, masks)
    write_ytvis(split.folder.with_suffix(".json"), dataset)


def make_pedestrians(args: argparse.Namespace) -> None:
    height, width = args.size
    frames = read_video(args.video)
    if not args.frames * 2 < args.split_frame < len(frames) - args.frames * 2:
        raise InputError(
            f"'{args.video}' has {len(frames)} frames: --split-frame {args.split_frame} must leave more than "
            f"{args.frames * 2} on both sides"
        )
    with new_folder(args.output) as output:
        for number, (name, share, videos) in enumerate(
            (
                ("train", frames[: args.split_frame], args.train_videos),
                ("val", frames[args.split_frame :], args.val_videos),
            )
        ):
            composer = Composer(Scene(share), (height, width), args.frames)
            if not composer.tracks:
                raise InputError(f"'{args.video}': nobody can be followed in the {name} part")
            make_split(Split(composer, output / name, args.seed * 2 + number), videos, args.processes, name)


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
