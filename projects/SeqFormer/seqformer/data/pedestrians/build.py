"""Builds a dataset of pedestrians in YouTube-VIS format from one video of a fixed camera.

People who touch nobody are cut out by background subtraction and followed. Videos are composed of them, some
over the street without people and some over real frames. The training split uses only the frames before the
split frame, the validation split only the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as mask_codec
from tqdm import tqdm

from seqformer.data.files import new_folder, write_json
from seqformer.data.pedestrians.compose import Composer, Video
from seqformer.data.pedestrians.cutouts import Scene, read_video
from seqformer.errors import InputError

__all__ = ["make_pedestrians"]

REAL_SHARE = 0.45  # of the videos have real frames as background
JPEG_QUALITY = 92


@dataclass
class Split:
    """What a worker needs to make the videos of a split."""

    composer: Composer
    folder: Path
    seed: int


_split: Split  # set before workers are forked, so that frames are shared and not sent


def make_video(number: int) -> tuple[dict, list[dict]]:
    """Composes and saves one video; returns its JSON entry, and its annotations without their ids."""
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
            pool.imap(make_video, range(videos)), total=videos, desc=title, unit="video", disable=None
        ):
            dataset["videos"].append(entry)
            for annotation in annotations:
                dataset["annotations"].append({"id": len(dataset["annotations"]) + 1, **annotation})
    write_json(split.folder.with_suffix(".json"), dataset)


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
        video: a video of a fixed camera.
        output: a folder that does not exist yet.
        split_frame: the first frame that the validation split uses.
        train_videos, val_videos: videos of the splits.
        num_frames: frames of a video.
        size: height and width of the frames, pixels.
        seed: the same seed gives the same dataset.
        processes: processes that make videos.

    Raises:
        InputError: if the video cannot be read or used, or the folder exists or cannot be written.
    """
    frames = read_video(video)
    if not num_frames * 2 < split_frame < len(frames) - num_frames * 2:
        raise InputError(
            f"'{video}' has {len(frames)} frames: `split_frame` {split_frame} must leave more than "
            f"{num_frames * 2} on both sides"
        )
    with new_folder(output) as folder:
        for number, (name, share, videos) in enumerate(
            (("train", frames[:split_frame], train_videos), ("val", frames[split_frame:], val_videos))
        ):
            composer = Composer(Scene(share), size, num_frames)
            if not composer.tracks:
                raise InputError(f"'{video}': nobody can be followed in the {name} part")
            make_split(Split(composer, folder / name, seed * 2 + number), videos, processes, name)
