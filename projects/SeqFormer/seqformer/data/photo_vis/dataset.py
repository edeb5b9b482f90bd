"""Writes the splits: frames as JPEG, annotations as YouTube-VIS JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as mask_api
from tqdm import tqdm

from seqformer.data.files import new_folder, write_json
from seqformer.data.photo_vis.material import CLASSES, Material
from seqformer.data.photo_vis.render import render
from seqformer.data.photo_vis.scene import SPLITS, make_scene
from seqformer.data.rle import encode_masks
from seqformer.errors import InputError

__all__ = ["make_photo_vis"]

_QUALITY = 88  # of JPEG

_Video = tuple[dict[str, Any], list[dict[str, Any]]]  # its JSON entry and annotations, without their ids


@dataclass
class _Job:
    """What a process needs to make the videos of a split."""

    material: Material
    split: str
    folder: Path
    height: int
    seed: int


_job: _Job  # of this process


def _start(job: _Job) -> None:
    global _job
    _job = job


def make_photo_vis(
    material: Mapping[str, Material],
    output: str | Path,
    videos: Mapping[str, int],
    *,
    height: int = 192,
    seed: int = 0,
    processes: int = 1,
    progress: bool = False,
) -> None:
    """Writes the benchmark: for each split NAME.json and NAME/JPEGImages.

    A video depends on the seed, the split and its number alone, whatever the number of videos and processes;
    its content is the same in all sizes.

    Args:
        material: photographs by split, "train" and "val", as far as the splits need them.
        output: a folder that does not exist yet.
        videos: how many, by split of :data:`SPLITS`.
        height: of a frame, pixels; the width is 5/3 of it.
        seed: the published benchmark has 0.
        processes: that draw.
        progress: show a bar.

    Raises:
        InputError: if photographs cannot be read, the output exists, or a number is out of range.
    """
    if height % 3 or height < 48:
        raise InputError(f"the height of a frame must be a multiple of 3 and at least 48, not {height}")
    if processes < 1 or min(videos.values()) < 1:
        raise InputError("the numbers of videos and processes must be at least 1")
    with new_folder(output) as part:
        for split, count in videos.items():
            job = _Job(material[SPLITS[split].material], split, part / split, height, seed)
            made = _make_videos(job, count, processes)
            done = list(tqdm(made, total=count, desc=split, unit="video", disable=not progress))
            _write(part / f"{split}.json", split, done)


def _make_videos(job: _Job, count: int, processes: int) -> Iterator[_Video]:
    if processes == 1:
        _start(job)
        yield from map(_make_video, range(count))
        return
    with get_context("spawn").Pool(processes, _start, (job,)) as pool:
        yield from pool.imap(_make_video, range(count))


def _make_video(number: int) -> _Video:
    """Draws and saves a video."""
    scene = make_scene(_job.material, SPLITS[_job.split], f"{_job.seed}/{_job.split}/{number}")
    frames, masks = render(scene, _job.material, _job.height)
    name = f"{number:05d}"
    folder = _job.folder / "JPEGImages" / name
    folder.mkdir(parents=True)
    names = [f"{name}/{t:05d}.jpg" for t in range(scene.length)]
    for file, frame in zip(names, frames, strict=True):
        Image.fromarray(frame).save(folder.parent / file, quality=_QUALITY)
    length, height, width = frames.shape[:3]
    entry = {
        "id": number + 1,
        "width": width,
        "height": height,
        "length": length,
        "file_names": names,
    }
    annotations = [
        _annotation(number + 1, label + 1, mask)
        for label, mask in zip(scene.labels, masks, strict=True)
        if mask.any()
    ]
    return entry, annotations


def _annotation(video_id: int, category_id: int, mask: np.ndarray) -> dict[str, Any]:
    """An entry of YouTube-VIS JSON, without its id, for a mask (T, H, W)."""
    rles = encode_masks(mask)
    return {
        "video_id": video_id,
        "category_id": category_id,
        "iscrowd": 0,
        "segmentations": rles,
        "bboxes": [None if rle is None else mask_api.toBbox(rle).tolist() for rle in rles],
        "areas": [None if rle is None else int(mask_api.area(rle)) for rle in rles],
    }


def _write(path: Path, split: str, done: list[_Video]) -> None:
    annotations = [annotation for _, of_video in done for annotation in of_video]
    write_json(
        path,
        {
            "info": {"description": f"PhotoVIS {split}: photographs composed into videos"},
            "categories": [{"id": index + 1, "name": name} for index, name in enumerate(CLASSES)],
            "videos": [entry for entry, _ in done],
            "annotations": [{"id": index + 1, **a} for index, a in enumerate(annotations)],
        },
    )
