"""Figures of a dataset, and the videos held out for validation."""

from __future__ import annotations

import numpy as np
import pytest

from seqformer.data import measure_dataset, split_videos
from seqformer.errors import InputError
from seqformer.formats.rle import encode_masks
from seqformer.formats.ytvis import Dataset, Video


def masks(*boxes: tuple[int, int] | None) -> list:
    """The RLEs of rectangles of the given heights and widths, None where there is none."""
    frames = np.zeros((len(boxes), 40, 60), dtype=bool)
    for frame, box in zip(frames, boxes, strict=True):
        if box:
            frame[: box[0], : box[1]] = True
    return [mask if box else None for mask, box in zip(encode_masks(frames), boxes, strict=True)]


def dataset(*categories: tuple[int, ...]) -> Dataset:
    """Videos of two frames, with one instance of each of the categories."""
    content = Dataset({1: "cat", 2: "dog", 3: "bird"}, {}, [])
    for id_, own in enumerate(categories, start=1):
        content.videos[id_] = Video(id_, [f"{id_}/0.jpg", f"{id_}/1.jpg"], 40, 60)
        for category in own:
            content.annotate(content.videos[id_], category, masks((10, 20), (4, 8)))
    return content


def test_figures_of_instances() -> None:
    content = Dataset({1: "cat"}, {1: Video(1, ["0", "1", "2"], 40, 60), 2: Video(2, ["3"], 40, 60)}, [])
    content.annotate(content.videos[1], 1, masks((10, 20), None, (12, 6)))
    content.annotate(content.videos[1], 1, masks(None, (8, 8), None))
    content.annotate(content.videos[2], 1, masks((40, 60)), crowd=True)
    figures = measure_dataset(content)
    assert figures.short_side == 8  # of 10, 6 and 8; crowds do not count
    assert (figures.most_at_once, figures.most_in_video) == (1, 2)
    assert (figures.num_videos, figures.num_frames, figures.num_instances) == (1, 4, 2)
    assert (figures.shortest, figures.median_length, figures.longest) == (1, 2, 3)
    assert figures.median_visible == 1.5
    assert figures.aspect == 1.5


def test_a_dataset_without_masks_is_refused() -> None:
    with pytest.raises(InputError, match="no video has an instance"):
        measure_dataset(dataset(()))


def test_whole_videos_are_held_out_and_every_time_the_same() -> None:
    content = dataset(*[(1,)] * 10)
    train, val = split_videos(content, seed=3)
    assert len(val.videos) == 2 and len(train.videos) == 8
    assert train.videos.keys() | val.videos.keys() == content.videos.keys()
    assert {a.video.id for a in train.annotations} == train.videos.keys()
    assert split_videos(content, seed=3)[1].videos.keys() == val.videos.keys()
    others = {tuple(split_videos(content, seed)[1].videos) for seed in range(5)}
    assert len(others) > 1


@pytest.mark.parametrize("seed", range(5))
def test_every_class_stays_in_training(seed: int) -> None:
    train, val = split_videos(dataset((1,), (1, 3), (1,), (2,), (1,), (2,)), seed)
    assert {a.category for a in train.annotations} == {1, 2, 3}
    assert len(val.videos) == 1


def test_one_video_cannot_be_split() -> None:
    with pytest.raises(InputError, match="1 video with an instance: at least 2"):
        split_videos(dataset((1,), ()))
