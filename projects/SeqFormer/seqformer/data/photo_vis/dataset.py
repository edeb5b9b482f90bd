"""Writes the splits: frames as JPEG, annotations as YouTube-VIS JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from seqformer.data.photo_vis.material import CLASSES, Material
from seqformer.data.photo_vis.render import render
from seqformer.data.photo_vis.scene import SPLITS, make_scene
from seqformer.errors import InputError
from seqformer.formats.files import new_folder
from seqformer.formats.rle import encode_masks
from seqformer.formats.ytvis import Dataset, Video, write_ytvis
from seqformer.structures import RLE

__all__ = ["make_photo_vis"]

_QUALITY = 88  # JPEG

_Instances = list[tuple[int, list[RLE | None]]]  # category ids and masks


@dataclass
class _Job:
    """Input of the processes that make the videos of a split."""

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
    """Writes the benchmark: NAME.json and NAME/JPEGImages for each split.

    A video depends only on the seed, the split and its number, not on the number of videos or processes. Its
    content is the same in all sizes.

    Args:
        material: photographs by split, "train" and "val", as needed for the requested videos.
        output: the folder to create; it must not exist.
        videos: number of videos for each split of :data:`SPLITS`.
        height: height of a frame in pixels; the width is 5/3 of it.
        seed: random seed; 0 for the published benchmark.
        processes: number of processes.
        progress: show a progress bar.

    Raises:
        InputError: if photographs cannot be read, the output exists, or a number is out of range.
    """
    if height % 3 or height < 48:
        raise InputError(f"the frame height must be a multiple of 3 and at least 48, not {height}")
    if processes < 1 or min(videos.values()) < 1:
        raise InputError("the numbers of videos and processes must be at least 1")
    with new_folder(output) as part:
        for split, count in videos.items():
            job = _Job(material[SPLITS[split].material], split, part / split, height, seed)
            made = _make_videos(job, count, processes)
            dataset = Dataset(dict(enumerate(CLASSES, start=1)), {}, [])
            for video, instances in tqdm(made, total=count, desc=split, unit="video", disable=not progress):
                dataset.videos[video.id] = video
                for category, masks in instances:
                    dataset.annotate(video, category, masks)
            write_ytvis(part / f"{split}.json", dataset)


def _make_videos(job: _Job, count: int, processes: int) -> Iterator[tuple[Video, _Instances]]:
    if processes == 1:
        _start(job)
        yield from map(_make_video, range(count))
        return
    with get_context("spawn").Pool(processes, _start, (job,)) as pool:
        yield from pool.imap(_make_video, range(count))


def _make_video(number: int) -> tuple[Video, _Instances]:
    """Renders and saves a video."""
    scene = make_scene(_job.material, SPLITS[_job.split], f"{_job.seed}/{_job.split}/{number}")
    frames, masks = render(scene, _job.material, _job.height)
    name = f"{number:05d}"
    folder = _job.folder / "JPEGImages" / name
    folder.mkdir(parents=True)
    names = [f"{name}/{t:05d}.jpg" for t in range(scene.length)]
    for file, frame in zip(names, frames, strict=True):
        Image.fromarray(frame).save(folder.parent / file, quality=_QUALITY)
    instances = [
        (label + 1, encode_masks(mask)) for label, mask in zip(scene.labels, masks, strict=True) if mask.any()
    ]
    return Video(number + 1, names, *frames.shape[1:3]), instances
