"""The data of a fine-tuning: checked, split and described."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from seqformer.data import DatasetFigures, measure_dataset, split_videos
from seqformer.errors import InputError
from seqformer.formats.check import check_dataset
from seqformer.formats.ytvis import Dataset

__all__ = ["count_frames", "listed", "load_data"]

_FEW_VIDEOS = 5
_LISTED = 5  # names in a message


def load_data(
    train: tuple[str, str], val: Sequence[str] | None, seed: int
) -> tuple[Dataset, Dataset, DatasetFigures]:
    """Returns training part, validation part, and the figures of both, and prints what they contain.

    Raises:
        InputError: if the data have problems, or do not suffice.
    """
    whole = _checked(*train)
    if not any(video.length for video in whole.videos.values()) or not whole.annotations:
        raise InputError(f"'{train[0]}' has no annotations: there is nothing to train on")
    if val:
        parts = whole, _checked(*val)
        first, second = (list(part.names.values()) for part in parts)
        if first != second:
            raise InputError(
                f"'{train[0]}' and '{val[0]}' have different classes: {listed(first)}, and {listed(second)}"
            )
        if not parts[1].annotations:
            raise InputError(f"'{val[0]}' has no annotations: nothing can be measured")
    else:
        try:
            parts = split_videos(whole, seed)
        except InputError as error:
            raise InputError(f"'{train[0]}': {error}; cut long videos into several, or give --val") from error
    annotations = [a for part in parts for a in part.annotations or ()]
    used = {a.category for a in annotations}
    names = {id_: name for id_, name in whole.names.items() if id_ in used}
    if unused := [name for id_, name in whole.names.items() if id_ not in used]:
        print(f"classes without an instance are left out: {listed(unused)}")
    both = [Dataset(names, part.videos, part.annotations) for part in parts]
    figures = _figures(both, train[0])
    for part, what in zip(both, ("training", "validation"), strict=True):
        held_out = "" if val or what == "training" else " (held out at random, the same ones in every run)"
        counts = f"{count_frames(part)} frames, {len(part.annotations or ())} instances"
        print(f"{what}: {len(part.videos)} videos, {counts}{held_out}")
    if figures.median_visible == 1 < figures.median_length:
        print(
            "warning: most instances are visible in one frame only: without the same id in all frames of an "
            "instance, the model cannot learn to track"
        )
    if len(both[0].videos) < _FEW_VIDEOS:
        print(f"warning: {len(both[0].videos)} training videos are few; expect a model for these scenes only")
    return both[0], both[1], figures


def _figures(parts: Sequence[Dataset], source: str) -> DatasetFigures:
    videos = dict(enumerate(video for part in parts for video in part.videos.values()))
    ids = {id(video): number for number, video in videos.items()}
    annotations = [
        replace(a, video=replace(a.video, id=ids[id(a.video)]))
        for part in parts
        for a in part.annotations or ()
    ]
    measure_dataset(parts[0])  # there must be something to train on
    return measure_dataset(Dataset(parts[0].names, videos, annotations))


def _checked(json_file: str, frames: str) -> Dataset:
    """Returns a dataset.

    Raises:
        InputError: if it has problems.
    """
    dataset, problems = check_dataset(Path(json_file), Path(frames))
    if problems:
        count = f"{len(problems)} problem{'s' * (len(problems) > 1)}"
        raise InputError(
            f"{count} in the data, listed by `seqformer check {json_file} {frames}`: {problems[0]}"
        )
    return dataset


def count_frames(dataset: Dataset) -> int:
    """Returns the number of frames of all videos."""
    return sum(video.length for video in dataset.videos.values())


def listed(names: Iterable[str]) -> str:
    """Returns the first names, for a message."""
    names = list(names)
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
