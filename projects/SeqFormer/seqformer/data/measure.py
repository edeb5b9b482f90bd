"""What a dataset is like: sizes of frames and instances, lengths of videos; and its split for validation."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as mask_api

from seqformer.errors import InputError
from seqformer.formats.ytvis import Dataset

__all__ = ["DatasetFigures", "measure_dataset", "select_videos", "split_videos"]

_VAL_SHARE = 0.2
_TRIED_SPLITS = 200


@dataclass(frozen=True)
class DatasetFigures:
    """Figures of a dataset in YouTube-VIS format, over its instances that are not crowds.

    Attributes:
        num_videos: videos with an instance.
        num_frames: frames of all videos.
        num_instances: instances of all videos.
        height, width: median size of frames, pixels.
        aspect: greatest ratio of a frame's longer to its shorter side.
        shortest, median_length, longest: frames of videos.
        median_visible: frames in which an instance is visible, median.
        short_side: median of the shorter sides of the boxes of masks, pixels.
        most_at_once: most instances that are visible in one frame.
        most_in_video: most instances of one video.
    """

    num_videos: int
    num_frames: int
    num_instances: int
    height: float
    width: float
    aspect: float
    shortest: int
    median_length: float
    longest: int
    median_visible: float
    short_side: float
    most_at_once: int
    most_in_video: int


def measure_dataset(dataset: Dataset) -> DatasetFigures:
    """Measures a dataset.

    Raises:
        InputError: if no video has an instance with a mask.
    """
    annotations = [a for a in dataset.annotations or () if not a.crowd and any(a.masks)]
    sides: list[float] = []
    spans: list[int] = []
    visible: dict[int, np.ndarray] = {}
    instances: dict[int, int] = {}
    for annotation in annotations:
        masks = [mask for mask in annotation.masks if mask and mask_api.area(mask)]
        if not masks:
            continue
        sides += np.min(mask_api.toBbox(masks)[:, 2:], axis=1).tolist()
        spans.append(len(masks))
        id_ = annotation.video.id
        here = np.array([bool(mask) for mask in annotation.masks], dtype=int)
        visible[id_] = visible.get(id_, 0) + here
        instances[id_] = instances.get(id_, 0) + 1
    if not instances:
        raise InputError("no video has an instance with a mask")
    videos = list(dataset.videos.values())
    lengths = [video.length for video in videos]
    return DatasetFigures(
        num_videos=len(instances),
        num_frames=sum(lengths),
        num_instances=sum(instances.values()),
        height=float(np.median([video.height for video in videos])),
        width=float(np.median([video.width for video in videos])),
        aspect=max(max(v.height, v.width) / min(v.height, v.width) for v in videos),
        shortest=min(lengths),
        median_length=float(np.median(lengths)),
        longest=max(lengths),
        median_visible=float(np.median(spans)),
        short_side=float(np.median(sides)),
        most_at_once=max(int(counts.max()) for counts in visible.values()),
        most_in_video=max(instances.values()),
    )


def select_videos(dataset: Dataset, ids: Collection[int]) -> Dataset:
    """Returns the part of a dataset that has the given videos; all categories stay."""
    return Dataset(
        dataset.names,
        {id_: video for id_, video in dataset.videos.items() if id_ in ids},
        [a for a in dataset.annotations or () if a.video.id in ids],
    )


def split_videos(dataset: Dataset, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Holds out about a fifth of the videos, at least one.

    Of random choices, one is taken that leaves as many classes as possible in the training part, then in the
    other. Videos without an instance stay in the training part.

    Args:
        dataset: the dataset.
        seed: the same seed chooses the same videos.

    Returns:
        the training part and the part held out.

    Raises:
        InputError: if fewer than two videos have an instance.
    """
    classes: dict[int, set[int]] = {}
    for annotation in dataset.annotations or ():
        if not annotation.crowd and any(annotation.masks):
            classes.setdefault(annotation.video.id, set()).add(annotation.category)
    ids = sorted(classes)
    if len(ids) < 2:
        raise InputError(
            f"{len(ids) or 'no'} video with an instance: at least 2 are needed, of which one is held out"
        )
    generator = np.random.default_rng(seed)
    count = max(1, round(_VAL_SHARE * len(ids)))

    def covered(chosen: set[int]) -> tuple[int, int]:
        parts = ([classes[id_] for id_ in ids if (id_ in chosen) == held] for held in (False, True))
        kept, held = (len(set().union(*part)) for part in parts)
        return kept, held

    choices = [set(generator.permutation(ids)[:count].tolist()) for _ in range(_TRIED_SPLITS)]
    chosen = max(choices, key=covered)
    return select_videos(dataset, dataset.videos.keys() - chosen), select_videos(dataset, chosen)
