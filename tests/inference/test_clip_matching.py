from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from seqformer.inference.clip_matching import ClipInstances, ClipMatcher, soft_iou


def clip_starts(num_frames: int, length: int, stride: int) -> list[int]:
    """First frames of the clips; the first that reaches the end of the video is shifted to end there."""
    starts = []
    start = 0
    while start + length < num_frames:
        starts.append(start)
        start += stride
    return [*starts, max(num_frames - length, 0)]


def readable_matching(clips: list[ClipInstances], length: int, num_frames: int):
    """The whole video in memory, one instance, clip and frame at a time.

    Returns mean class probabilities and, by instance and frame, mean logits, in order of appearance.
    """
    memory: list[list[int]] = []  # ids of every clip's instances
    instances: list[list[tuple[int, int]]] = []  # of every id: clips and rows
    for number, clip in enumerate(clips):
        new = clip.mask_logits.sigmoid().double()
        previous = range(max(number - length, 0), number)
        similarity = np.zeros((len(instances), len(new)))
        for i, j in np.ndindex(*similarity.shape):
            values = []
            for p in previous:
                overlap = [f for f in range(clip.start, clip.end) if clips[p].start <= f < clips[p].end]
                if not overlap or i not in memory[p]:
                    continue
                row = memory[p].index(i)
                intersection = union = 0.0
                for f in overlap:
                    a = clips[p].mask_logits[row, f - clips[p].start].sigmoid().double()
                    b = new[j, f - clip.start]
                    intersection += (a * b).sum().item()
                    union += (a + b - a * b).sum().item()
                values.append(intersection / (union + 1e-6))
            similarity[i, j] = np.mean(values) if values else 0.0
        ids = [-1] * len(new)
        for i, j in zip(*linear_sum_assignment(-similarity), strict=True):
            if similarity[i, j] > 0.01:
                ids[j] = int(i)
        for j, i in enumerate(ids):
            if i < 0:
                ids[j] = len(instances)
                instances.append([])
            instances[ids[j]].append((number, j))
        memory.append(ids)
    classes = [torch.stack([clips[c].class_probabilities[j] for c, j in held]).mean(0) for held in instances]
    logits = {}
    for i, held in enumerate(instances):
        for f in range(num_frames):
            here = [
                clips[c].mask_logits[j, f - clips[c].start]
                for c, j in held
                if clips[c].start <= f < clips[c].end
            ]
            if here:
                logits[i, f] = torch.stack(here).mean(0)
    return classes, logits


def make_clips(seed: int, num_frames: int, length: int, stride: int) -> list[ClipInstances]:
    """Squares that move; each clip finds some of them, in any order, with noise."""
    generator = torch.Generator().manual_seed(seed)
    size, objects = 16, 5
    place = torch.rand(objects, 2, generator=generator) * 10
    speed = torch.rand(objects, 2, generator=generator) - 0.5
    clips = []
    for start in clip_starts(num_frames, length, stride):
        end = min(start + length, num_frames)
        found = torch.randperm(objects, generator=generator)[
            : torch.randint(1, objects + 1, (1,), generator=generator)
        ]
        masks = torch.full((len(found), end - start, size, size), -6.0)
        for row, o in enumerate(found.tolist()):
            for t in range(start, end):
                x, y = (place[o] + speed[o] * t).clamp(0, size - 5).int().tolist()
                masks[row, t - start, y : y + 5, x : x + 5] = 6.0
        masks += torch.randn(masks.shape, generator=generator)
        clips.append(ClipInstances(start, torch.rand(len(found), 3, generator=generator), masks))
    return clips


def run(clips: list[ClipInstances], length: int, num_frames: int, limit: int = 3):
    """The matcher as inference uses it; its bounds are checked on the way."""
    matcher = ClipMatcher(length)
    logits, handed_out, classes = {}, [], {}
    for number, clip in enumerate(clips):
        ids = matcher.update(clip)
        assert not set(ids) & set(classes), "a retired instance came back"
        end = clip.start + 1 if number + 1 < len(clips) else num_frames
        while (final := matcher.pop_final(end, limit)) is not None:
            frames = range(final.start, final.start + final.mask_logits.shape[1])
            assert len(frames) <= limit
            handed_out += frames
            for row, i in enumerate(final.ids):
                assert i not in classes, "a mask of a retired instance"
                for f in frames:
                    if final.present[row, f - final.start]:
                        logits[i, f] = final.mask_logits[row, f - final.start]
        classes.update(matcher.pop_retired())
        assert len(matcher._clips) <= length
        assert len(matcher.instances()) <= sum(len(m.ids) for m in matcher._clips)
    assert handed_out == list(range(num_frames))
    assert not matcher.instances(), "at the end every instance has retired"
    return [classes[i] for i in sorted(classes)], logits


def check(clips: list[ClipInstances], length: int, num_frames: int) -> None:
    """The matcher agrees with the readable version."""
    classes, logits = run(clips, length, num_frames)
    expected_classes, expected_logits = readable_matching(clips, length, num_frames)
    assert len(classes) == len(expected_classes)
    torch.testing.assert_close(classes, expected_classes)
    assert logits.keys() == expected_logits.keys()
    for key, expected in expected_logits.items():
        torch.testing.assert_close(logits[key], expected)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 1000),
    num_frames=st.integers(1, 20),
    length=st.integers(1, 6),
    stride=st.integers(1, 6),
    gap=st.integers(0, 4),
)
def test_agrees_with_the_readable_version(seed, num_frames, length, stride, gap) -> None:
    """Any clips, without overlap (stride = length) and longer than the video; in a gap nothing is found."""
    stride = min(stride, length)
    clips = make_clips(seed, num_frames, length, stride)
    for clip in clips[1 : 1 + gap]:
        clip.mask_logits = clip.mask_logits[:0]
        clip.class_probabilities = clip.class_probabilities[:0]
    check(clips, length, num_frames)


@pytest.mark.parametrize(("num_frames", "length", "stride"), [(9, 3, 3), (2, 5, 1), (1, 1, 1), (13, 4, 3)])
def test_borderline_clips(num_frames: int, length: int, stride: int) -> None:
    check(make_clips(3, num_frames, length, stride), length, num_frames)


def test_hundreds_of_instances_with_a_state_that_does_not_grow() -> None:
    """Ten new instances in every clip; those of the last clips are all that is remembered."""
    generator = torch.Generator().manual_seed(0)
    matcher, seen = ClipMatcher(3), 0
    for start in range(60):
        masks = torch.full((10, 3, 8, 8), -30.0)
        masks[torch.arange(10), :, (torch.arange(10) + start) % 8, start % 7] = 30.0
        matcher.update(ClipInstances(start, torch.rand(10, 2, generator=generator), masks))
        while matcher.pop_final(start + 1, 8) is not None:
            pass
        seen += len(matcher.pop_retired())
        assert len(matcher._clips) <= 2
        assert len(matcher.instances()) <= 20
    assert seen > 120
    assert matcher._next_id == seen + len(matcher.instances())


def test_goes_on_from_a_saved_state(tmp_path) -> None:
    clips = make_clips(5, 20, 4, 2)
    saved, whole = ClipMatcher(4), ClipMatcher(4)
    for number, clip in enumerate(clips):
        if number == 4:
            torch.save(saved.state(), tmp_path / "state.pth")
            saved = ClipMatcher(4)
            saved.restore(torch.load(tmp_path / "state.pth", weights_only=True))
        assert saved.update(clip) == whole.update(clip)
        finals = saved.pop_final(clip.start + 1, 8), whole.pop_final(clip.start + 1, 8)
        torch.testing.assert_close(finals[0].mask_logits, finals[1].mask_logits, rtol=0, atol=0)
        assert (finals[0].start, finals[0].ids) == (finals[1].start, finals[1].ids)
        torch.testing.assert_close(saved.pop_retired(), whole.pop_retired(), rtol=0, atol=0)


def test_an_instance_that_vanishes_for_longer_than_the_memory_is_new() -> None:
    mask = torch.full((1, 2, 4, 4), 9.0)
    nothing = mask[:0]
    matcher = ClipMatcher(2)
    ids = [
        matcher.update(ClipInstances(start, torch.ones(len(m), 1), m))
        for start, m in enumerate([mask, mask, nothing, nothing, mask])
    ]
    assert ids == [[0], [0], [], [], [1]]


def test_soft_iou() -> None:
    p = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.5, 0.5, 0.5, 0.5]]).view(2, 1, 2, 2)
    q = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).view(1, 1, 2, 2)
    torch.testing.assert_close(soft_iou(p, q), torch.tensor([[1 / 2], [0.5 / 2.5]]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("num_frames", "length", "stride", "expected"),
    [(5, 3, 1, [0, 1, 2]), (5, 2, 2, [0, 2, 3]), (3, 5, 1, [0]), (5, 5, 1, [0]), (6, 5, 4, [0, 1])],
)
def test_inference_decodes_the_clips_of_the_definition(num_frames, length, stride, expected) -> None:
    from networks import tiny_model

    assert clip_starts(num_frames, length, stride) == expected
    model = tiny_model(CLIP_MATCHING=True, CLIP_LENGTH=length, CLIP_STRIDE=stride)
    from seqformer.inference.video import VideoInference

    inference = VideoInference(model, model.options)
    decoded = []
    decode = inference._decode
    inference._decode = lambda start, end: (decoded.append((start, end)), decode(start, end))
    finals = list(inference.run([torch.rand(3, 32, 32) * 255 for _ in range(num_frames)]))
    assert decoded == [(start, min(start + length, num_frames)) for start in expected]
    assert sum(final.mask_logits.shape[1] for final in finals) == num_frames
