from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_tracking import Tracker, make_clips, readable_matching

from seqformer.tracking import ClipInstances, InstanceStore, assign_by_overlap, soft_iou


def make_tracker(length: int, max_active: int = 0) -> Tracker:
    return Tracker(InstanceStore(length, max_active), assign_by_overlap)


def run(clips: list[ClipInstances], length: int, num_frames: int, limit: int = 3, max_active: int = 0):
    """Runs the tracker as inference does, and checks its bounds."""
    tracker = make_tracker(length, max_active)
    logits, handed_out, classes = {}, [], {}
    for number, clip in enumerate(clips):
        ids = tracker.update(clip)
        assert not set(ids) & set(classes), "a retired instance reappeared"
        live = {i for m in tracker.store.clips for i in m.ids}
        assert len(live) <= (max_active or 5 * length)
        end = clip.start + 1 if number + 1 < len(clips) else num_frames
        while (final := tracker.store.pop_final(end, limit)) is not None:
            frames = range(final.start, final.start + final.mask_logits.shape[1])
            assert len(frames) <= limit
            handed_out += frames
            for row, i in enumerate(final.ids):
                assert i not in classes, "a mask of a retired instance"
                for f in frames:
                    if final.present[row, f - final.start]:
                        logits[i, f] = final.mask_logits[row, f - final.start]
        classes.update(tracker.store.pop_retired())
        assert len(tracker.store.clips) <= length
        assert len(tracker.store.probabilities()) <= sum(len(m.ids) for m in tracker.store.clips)
    assert handed_out == list(range(num_frames))
    assert not tracker.store.probabilities(), "all instances have retired at the end"
    assert set(classes) == {i for i, _ in logits}, "retired instances were visible"
    return dict(sorted(classes.items())), logits


def check(clips: list[ClipInstances], length: int, num_frames: int, max_active: int = 0) -> None:
    """The tracker agrees with the reference bit by bit."""
    classes, logits = run(clips, length, num_frames, max_active=max_active)
    expected_classes, expected_logits = readable_matching(clips, length, num_frames, max_active)
    assert list(classes) == list(expected_classes)
    assert all(torch.equal(classes[i], expected) for i, expected in expected_classes.items())
    assert logits.keys() == expected_logits.keys()
    for key, expected in expected_logits.items():
        assert torch.equal(logits[key], expected)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 1000),
    num_frames=st.integers(1, 20),
    length=st.integers(1, 6),
    stride=st.integers(1, 6),
    gap=st.integers(0, 4),
    vanished=st.integers(1, 5),
    max_active=st.integers(0, 8),
)
def test_agrees_with_the_readable_version(
    seed, num_frames, length, stride, gap, vanished, max_active
) -> None:
    """Random clips, including clips without overlap (stride = length) and longer than the video.

    Some or all instances vanish for a few or for many clips.
    """
    stride = min(stride, length)
    clips = make_clips(seed, num_frames, length, stride, range(1, 1 + gap), vanished)
    check(clips, length, num_frames, max_active)


@pytest.mark.parametrize(("num_frames", "length", "stride"), [(9, 3, 3), (2, 5, 1), (1, 1, 1), (13, 4, 3)])
def test_borderline_clips(num_frames: int, length: int, stride: int) -> None:
    check(make_clips(3, num_frames, length, stride), length, num_frames)


def test_hundreds_of_instances_with_a_state_that_does_not_grow() -> None:
    """Each clip has ten new instances, and the store keeps those of the last clips only."""
    generator = torch.Generator().manual_seed(0)
    tracker, seen = make_tracker(3), 0
    for start in range(60):
        masks = torch.full((10, 3, 8, 8), -30.0)
        masks[torch.arange(10), :, (torch.arange(10) + start) % 8, start % 7] = 30.0
        tracker.update(ClipInstances(start, torch.rand(10, 2, generator=generator), masks))
        while tracker.store.pop_final(start + 1, 8) is not None:
            pass
        seen += len(tracker.store.pop_retired())
        assert len(tracker.store.clips) <= 2
        assert len(tracker.store.probabilities()) <= 20
    assert seen > 120
    assert tracker.store.new_id() == seen + len(tracker.store.probabilities())


def test_a_limit_that_is_never_reached_changes_nothing() -> None:
    clips = make_clips(7, 20, 3, 1)
    free, bounded = run(clips, 3, 20), run(clips, 3, 20, max_active=3 * 5)
    torch.testing.assert_close(bounded, free, rtol=0, atol=0)


def test_order_of_dropping() -> None:
    """Not recently seen instances first, then improbable ones; a reappearing instance is new."""

    def clip(start: int, *squares: tuple[int, float]) -> ClipInstances:
        masks = torch.full((len(squares), 3, 4, 4), -30.0)
        for row, (place, _) in enumerate(squares):
            masks[row, :, place] = 30.0
        return ClipInstances(start, torch.tensor([[p] for _, p in squares]), masks)

    tracker = make_tracker(3, max_active=2)
    assert tracker.update(clip(0, (0, 0.9), (1, 0.1))) == [0, 1]
    assert tracker.update(clip(1, (1, 0.1), (2, 0.5))) == [1, 2], "the first is probable, but was not seen"
    assert list(tracker.store.pop_retired()) == [0]
    assert tracker.update(clip(2, (1, 0.1), (2, 0.5), (0, 0.3))) == [1, 2, 3], "the second is least probable"
    assert list(tracker.store.pop_retired()) == [1]
    assert tracker.update(clip(3, (0, 0.3), (2, 0.5), (1, 0.2))) == [3, 2, 4]
    assert not tracker.store.pop_retired(), "added and dropped by the same clip"
    assert list(tracker.store.probabilities()) == [2, 3]
    assert tracker.store.pop_final(6, 9).ids == [2, 3]


@pytest.mark.parametrize("max_active", [0, 3])
def test_continues_from_a_saved_state(tmp_path, max_active: int) -> None:
    clips = make_clips(5, 20, 4, 2)
    saved, whole = make_tracker(4, max_active), make_tracker(4, max_active)
    for number, clip in enumerate(clips):
        if number == 4:
            torch.save(saved.store.state(), tmp_path / "state.pth")
            saved = make_tracker(4, max_active)
            saved.store.restore(torch.load(tmp_path / "state.pth", weights_only=True))
        assert saved.update(clip) == whole.update(clip)
        finals = saved.store.pop_final(clip.start + 1, 8), whole.store.pop_final(clip.start + 1, 8)
        torch.testing.assert_close(finals[0].mask_logits, finals[1].mask_logits, rtol=0, atol=0)
        assert (finals[0].start, finals[0].ids) == (finals[1].start, finals[1].ids)
        torch.testing.assert_close(saved.store.pop_retired(), whole.store.pop_retired(), rtol=0, atol=0)


def test_an_instance_that_vanishes_for_longer_than_the_memory_is_new() -> None:
    mask = torch.full((1, 2, 4, 4), 9.0)
    nothing = mask[:0]
    tracker = make_tracker(2)
    ids = [
        tracker.update(ClipInstances(start, torch.ones(len(m), 1), m))
        for start, m in enumerate([mask, mask, nothing, nothing, mask])
    ]
    assert ids == [[0], [0], [], [], [1]]


def test_soft_iou() -> None:
    p = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.5, 0.5, 0.5, 0.5]]).view(2, 1, 2, 2)
    q = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).view(1, 1, 2, 2)
    torch.testing.assert_close(soft_iou(p, q), torch.tensor([[1 / 2], [0.5 / 2.5]]), rtol=1e-5, atol=1e-5)
