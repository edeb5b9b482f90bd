"""Builds a dataset of pedestrians in YouTube-VIS format from one video of a fixed camera.

People who do not touch others are cut out by background subtraction and tracked. Videos are composed of them,
over the empty street or over real frames. The training split uses only frames before the split frame, the
validation split only the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from seqformer.data.pedestrians.compose import Composer
from seqformer.data.pedestrians.cutouts import Scene, read_video
from seqformer.errors import InputError
from seqformer.formats.files import new_folder
from seqformer.formats.rle import encode_masks
from seqformer.formats.ytvis import Dataset, Video, write_ytvis
from seqformer.structures import RLE

__all__ = ["make_pedestrians"]

REAL_SHARE = 0.45  # fraction of videos with real frames as background
JPEG_QUALITY = 92


@dataclass
class Split:
    """Input of the worker processes that make the videos of a split."""

    composer: Composer
    folder: Path
    seed: int


_split: Split  # set before workers are forked, so that they share the frames


def make_video(number: int) -> tuple[Video, list[list[RLE | None]]]:
    """Composes and saves one video; returns its entry in the dataset and the masks of its instances."""
    rng = np.random.default_rng([_split.seed, number])
    video = _split.composer.compose(rng, real=bool(rng.random() < REAL_SHARE))
    name = f"{number:05d}"
    folder = _split.folder / "JPEGImages" / name
    folder.mkdir(parents=True)
    files = []
    for t, frame in enumerate(video.frames):
        files.append(f"{name}/{t:05d}.jpg")
        if not cv2.imwrite(str(folder / f"{t:05d}.jpg"), frame, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]):
            raise InputError(f"cannot write a frame to '{folder}'")
    height, width = video.frames.shape[1:3]
    return Video(number + 1, files, height, width), [encode_masks(mask) for mask in video.masks.values()]


def make_split(split: Split, videos: int, processes: int, title: str) -> None:
    """Makes all videos of a split and writes its JSON."""
    global _split
    _split = split
    dataset = Dataset({1: "person"}, {}, [])
    with get_context("fork").Pool(processes) as pool:
        for video, instances in tqdm(
            pool.imap(make_video, range(videos)), total=videos, desc=title, unit="video", disable=None
        ):
            dataset.videos[video.id] = video
            for masks in instances:
                dataset.annotate(video, 1, masks)
    write_ytvis(split.folder.with_suffix(".json"), dataset)


def make_pedestrians(
    video: str | Path,
    output: str | Path,
    *,
    split_frame: int = 500,
    train_videos: int = 600,
    val_videos: int = 40,
    num_frames: int = 20,
    size: tuple[int, int] = (432, 576),
    seed: int = 0,
    processes: int = 2,
) -> None:
    """Makes the dataset: train.json, val.json and their frames in train/JPEGImages and val/JPEGImages.

    Args:
        video: the video of a fixed camera.
        output: the folder to create; it must not exist.
        split_frame: the first frame of the validation split.
        train_videos, val_videos: number of videos in each split.
        num_frames: frames in a video.
        size: height and width of the frames in pixels.
        seed: the same seed produces the same dataset.
        processes: number of processes.

    Raises:
        InputError: if the video cannot be read or used, or the folder exists or cannot be written.
    """
    frames = read_video(video)
    if not num_frames * 2 < split_frame < len(frames) - num_frames * 2:
        raise InputError(
            f"'{video}' has {len(frames)} frames: `split_frame` {split_frame} must leave more than "
            f"{num_frames * 2} frames on both sides"
        )
    with new_folder(output) as folder:
        for number, (name, share, videos) in enumerate(
            (("train", frames[:split_frame], train_videos), ("val", frames[split_frame:], val_videos))
        ):
            composer = Composer(Scene(share), size, num_frames)
            if not composer.tracks:
                raise InputError(f"'{video}': no person can be tracked in the {name} part")
            make_split(Split(composer, folder / name, seed * 2 + number), videos, processes, name)
