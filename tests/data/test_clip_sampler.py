"""Selection of the frames of a training clip."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqformer.data import ClipSampler
from seqformer.errors import InputError


@given(
    num_frames=st.integers(1, 8),
    frame_range=st.integers(0, 12),
    interval=st.integers(1, 4),
    length=st.integers(1, 30),
    shuffle=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_clips(
    num_frames: int, frame_range: int, interval: int, length: int, shuffle: bool, seed: int
) -> None:
    np.random.seed(seed)
    frames = ClipSampler(num_frames, frame_range, interval, shuffle)(length)
    assert len(frames) == num_frames
    assert all(isinstance(frame, int) and 0 <= frame < length for frame in frames)
    if length >= num_frames:
        assert len(set(frames)) == num_frames, "a frame repeats though the video is long enough"
    else:
        assert set(frames) == set(range(length)), "a short video is used whole"
        counts = Counter(frames).values()
        assert max(counts) - min(counts) <= 1 + (num_frames - 1) // length
    if not shuffle:
        assert frames == sorted(frames)

    def near(reference: int) -> set[int]:
        steps = range(-frame_range, frame_range + 1)
        return {reference + step for step in steps if step % interval == 0} & set(range(length))

    if all(len(near(reference)) >= num_frames for reference in range(length)):
        assert any(set(frames) <= near(reference) for reference in frames)


def test_every_frame_is_equally_often_the_reference() -> None:
    counts = Counter(ClipSampler(1, 10)(5)[0] for _ in range(5000))
    assert set(counts) == set(range(5))
    assert all(850 < count < 1150 for count in counts.values())


def test_shuffled_clips_have_any_order() -> None:
    sampler = ClipSampler(3, 10, shuffle=True)
    orders = {tuple(np.argsort(sampler(30))) for _ in range(200)}
    assert len(orders) == 6


def test_the_nearest_frames_are_added_if_there_are_too_few_candidates() -> None:
    sampler = ClipSampler(3, frame_range=0)
    clips = [sampler(9) for _ in range(100)]
    assert all(max(clip) - min(clip) == 2 for clip in clips)


@pytest.mark.parametrize("values", [(0, 10, 1), (5, -1, 1), (5, 10, 0)])
def test_numbers_out_of_range(values: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match="SAMPLING_FRAME_NUM"):
        ClipSampler(*values)
