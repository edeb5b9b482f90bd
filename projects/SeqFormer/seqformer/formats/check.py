"""Checks a whole dataset: its JSON, its frames, and whether they match."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from pycocotools import mask as mask_api

from seqformer.errors import InputError
from seqformer.formats.checks import Report
from seqformer.formats.frames import frame_size, read_frame
from seqformer.formats.ytvis import Annotation, Dataset, Video, read_ytvis

__all__ = ["check_dataset"]

_IOU_THRESHOLD = 0.5  # of a box and the box around its mask


def check_dataset(
    json_file: Path,
    image_root: Path,
    *,
    decode: bool = False,
    progress: Callable[[Iterable[Video]], Iterable[Video]] = iter,
) -> tuple[Dataset, list[str]]:
    """Finds all problems of a dataset.

    The JSON is parsed by the code that training and evaluation use, so the same problems are found. In
    addition, the sizes of frames and the boxes of masks are compared with the JSON, and annotations without
    a mask and duplicate frames are reported.

    Args:
        json_file: annotations in YouTube-VIS format.
        image_root: the folder that file names in the JSON are relative to.
        decode: decode whole frames to find truncated files, instead of reading only their sizes.
        progress: wraps the videos whose frames are checked, for example in a progress bar.

    Returns:
        The usable part of the dataset, and one line per problem. Videos with a frame that is missing, cannot
        be read or has the wrong size are not usable, nor are their annotations.

    Raises:
        InputError: if the JSON cannot be read, or the folder is missing.
    """
    if not image_root.is_dir():
        raise InputError(f"no folder '{image_root}'")
    problems: list[str] = []
    dataset = read_ytvis(json_file, problems.append, image_root)
    usable = {
        video.id: video
        for video in progress(dataset.videos.values())
        if _check_frames(video, f"{json_file}: video {video.id}", image_root, decode, problems.append)
    }
    for annotation in dataset.annotations or ():
        where = f"{json_file}: video {annotation.video.id}, annotation {annotation.id}"
        _check_annotation(annotation, where, problems.append)
    if dataset.annotations is not None:
        dataset.annotations = [a for a in dataset.annotations if a.video.id in usable]
    return Dataset(dataset.names, usable, dataset.annotations), problems


def _check_frames(video: Video, where: str, image_root: Path, decode: bool, report: Report) -> bool:
    """Returns whether all frames can be used."""
    seen: dict[str, int] = {}
    usable = True
    paths = [image_root / name for name in video.names]
    for frame, name in enumerate(video.names):
        if name in seen:
            report(f"{where}, frame {frame}: '{name}' is also frame {seen[name]}")
            continue
        seen[name] = frame
        path = image_root / name
        if not os.path.isfile(path):  # False for a name that is too long, which Path.is_file raises
            usable = False  # read_ytvis has already reported it
            continue
        try:
            height, width = read_frame(path, paths).shape[:2] if decode else frame_size(path)
        except InputError as error:
            report(f"{where}, frame {frame}: {error}")
            usable = False
            continue
        if (height, width) != (video.height, video.width):
            report(
                f"{where}, frame {frame}: '{path}' is {width}x{height} pixels, but the annotations are for "
                f"{video.width}x{video.height}"
            )
            usable = False
    return usable


def _check_annotation(annotation: Annotation, where: str, report: Report) -> None:
    filled = [frame for frame, mask in enumerate(annotation.masks) if mask and mask_api.area(mask)]
    if not filled:
        report(f"{where}: no frame has a mask")
    for frame in filled:
        box = annotation.boxes[frame] if annotation.boxes is not None else None
        if box is None:
            continue
        around = mask_api.toBbox(annotation.masks[frame]).tolist()
        if mask_api.iou([box], [around], [0]).item() < _IOU_THRESHOLD:
            report(
                f"{where}, frame {frame}: the box {box} does not match the box of the mask, {around} "
                "(x, y, width, height)"
            )
