from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from slow_tracking import clip_starts

from seqformer.tracking import ClipInstances, fits_one_clip, plan_clips


@given(length=st.integers(1, 40), clip_length=st.integers(1, 12), stride=st.integers(1, 12))
def test_clips_follow_the_definition(length: int, clip_length: int, stride: int) -> None:
    expected = [
        range(start, min(start + clip_length, length)) for start in clip_starts(length, clip_length, stride)
    ]
    assert plan_clips(length, clip_length, stride) == expected


@given(
    steps=st.lists(st.integers(1, 7), min_size=1, max_size=8),
    clip_length=st.integers(1, 9),
    stride=st.integers(1, 9),
)
def test_clips_do_not_depend_on_how_frames_arrive(steps, clip_length: int, stride: int) -> None:
    seen, start, clips = 0, 0, []
    for step in steps:
        seen += step
        ready = plan_clips(seen, clip_length, stride, start=start, ended=False)
        assert all(len(clip) == clip_length and clip.stop <= seen for clip in ready)
        clips += ready
        start += stride * len(ready)
    clips += plan_clips(seen, clip_length, stride, start=start)
    assert clips == plan_clips(seen, clip_length, stride)


def test_a_video_without_frames_has_no_clips() -> None:
    assert plan_clips(0, 5, 1) == plan_clips(0, 5, 1, ended=False) == []


@pytest.mark.parametrize(
    ("length", "budget", "expected"), [(10, 1000, True), (10, 999, False), (None, 1e12, False), (0, 0, True)]
)
def test_whether_a_video_is_one_clip(length: int | None, budget: float, expected: bool) -> None:
    assert fits_one_clip(length, 100, budget) is expected


def test_selected_instances_keep_their_values() -> None:
    clip = ClipInstances(4, torch.rand(3, 2), torch.randn(3, 5, 2, 2))
    assert (len(clip), clip.end) == (3, 9)
    assert torch.equal(clip.mask_probabilities, clip.mask_logits.sigmoid())
    selected = clip.select([2, 0])
    assert (len(selected), selected.start, selected.end) == (2, 4, 9)
    for name in ("class_probabilities", "mask_logits", "mask_probabilities"):
        assert torch.equal(getattr(selected, name), getattr(clip, name)[[2, 0]])
