from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import tiny_model
from scipy.optimize import linear_sum_assignment

from seqformer.inference.clip_matching import ClipInstances, ClipMatcher, soft_iou
from seqformer.inference.postprocess import InferenceOptions, output_masks, scored_classes
from seqformer.inference.video import VideoInference


def clip_starts(num_frames: int, length: int, stride: int) -> list[int]:
    """First frames of the clips; the first that reaches the end of the video is shifted to end there."""
    starts = []
    start = 0
    while start + length < num_frames:
        starts.append(start)
        start += stride
    return [*starts, max(num_frames - length, 0)]


def readable_matching(clips: list[ClipInstances], length: int, num_frames: int, max_live: int = 0):
    """The whole video in memory, one instance, clip and frame at a time.

    Returns mean class probabilities and, by instance and frame, mean logits, in order of appearance. A mean
    is the sum in the order of clips, divided by their number.
    """
    memory: list[list[int]] = []  # ids of every clip's instances
    instances: list[list[tuple[int, int]]] = []  # of every id: clips and rows
    ends: dict[int, int] = {}  # of ids that ``max_live`` ended: the first frame that does not show them

    def classes_of(i: int) -> torch.Tensor:
        return in_order([clips[c].class_probabilities[j] for c, j in instances[i]])

    for number, clip in enumerate(clips):
        new = clip.mask_logits.sigmoid().double()
        previous = range(max(number - length, 0), number)
        similarity = np.zeros((len(instances), len(new)))
        for i, j in np.ndindex(*similarity.shape):
            values = []
            for p in previous:
                overlap = [f for f in range(clip.start, clip.end) if clips[p].start <= f < clips[p].end]
                if not overlap or i not in memory[p] or i in ends:
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
        if max_live:
            handed_out = clips[number - 1].start + 1 if number else 0
            last_seen = {
                i: p
                for p in range(max(number - length + 1, 0), number + 1)
                if clips[p].end > handed_out
                for i in memory[p]
                if i not in ends
            }
            ranked = sorted(last_seen, key=lambda i: (-last_seen[i], -float(classes_of(i).max()), i))
            ends.update(dict.fromkeys(ranked[max_live:], handed_out))
    classes, logits = {}, {}
    for i, held in enumerate(instances):
        if i in ends and clips[held[0][0]].start >= ends[i]:
            continue  # found and ended by the same clip
        classes[i] = classes_of(i)
        for f in range(ends.get(i, num_frames)):
            here = [
                clips[c].mask_logits[j, f - clips[c].start]
                for c, j in held
                if clips[c].start <= f < clips[c].end
            ]
            if here:
                logits[i, f] = in_order(here)
    return classes, logits


def in_order(tensors: list[torch.Tensor]) -> torch.Tensor:
    """The mean, added up from the first to the last."""
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total / len(tensors)


def make_clips(
    seed: int, num_frames: int, length: int, stride: int, gap: range = range(0), vanished: int = 0
) -> list[ClipInstances]:
    """Squares that move; each clip finds some of them, in any order, with noise.

    In the clips of ``gap`` the first ``vanished`` of the five are not found.
    """
    generator = torch.Generator().manual_seed(seed)
    size, objects = 16, 5
    place = torch.rand(objects, 2, generator=generator) * 10
    speed = torch.rand(objects, 2, generator=generator) - 0.5
    clips = []
    for number, start in enumerate(clip_starts(num_frames, length, stride)):
        end = min(start + length, num_frames)
        found = torch.randperm(objects, generator=generator)[
            : torch.randint(1, objects + 1, (1,), generator=generator)
        ]
        if number in gap:
            found = found[found >= vanished]
        masks = torch.full((len(found), end - start, size, size), -6.0)
        for row, o in enumerate(found.tolist()):
            for t in range(start, end):
                x, y = (place[o] + speed[o] * t).clamp(0, size - 5).int().tolist()
                masks[row, t - start, y : y + 5, x : x + 5] = 6.0
        masks += torch.randn(masks.shape, generator=generator)
        clips.append(ClipInstances(start, torch.rand(len(found), 3, generator=generator), masks))
    return clips


def run(clips: list[ClipInstances], length: int, num_frames: int, limit: int = 3, max_live: int = 0):
    """The matcher as inference uses it; its bounds are checked on the way."""
    matcher = ClipMatcher(length, max_live)
    logits, handed_out, classes = {}, [], {}
    for number, clip in enumerate(clips):
        ids = matcher.update(clip)
        assert not set(ids) & set(classes), "a retired instance came back"
        live = {i for m in matcher._clips for i in m.ids}
        assert len(live) <= (max_live or 5 * length)
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
    assert set(classes) == {i for i, _ in logits}, "what ends has been seen"
    return dict(sorted(classes.items())), logits


def check(clips: list[ClipInstances], length: int, num_frames: int, max_live: int = 0) -> None:
    """The matcher agrees with the readable version, in every bit."""
    classes, logits = run(clips, length, num_frames, max_live=max_live)
    expected_classes, expected_logits = readable_matching(clips, length, num_frames, max_live)
    assert list(classes) == list(expected_classes)
    options = InferenceOptions()
    assert scored_classes(classes, options) == scored_classes(expected_classes, options)
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
    max_live=st.integers(0, 8),
)
def test_agrees_with_the_readable_version(seed, num_frames, length, stride, gap, vanished, max_live) -> None:
    """Any clips, without overlap (stride = length) and longer than the video.

    For some clips, no more than the memory or many, some instances or all of them vanish.
    """
    stride = min(stride, length)
    clips = make_clips(seed, num_frames, length, stride, range(1, 1 + gap), vanished)
    check(clips, length, num_frames, max_live)


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


def test_a_bound_as_high_as_the_natural_one_changes_nothing() -> None:
    clips = make_clips(7, 20, 3, 1)
    free, bounded = run(clips, 3, 20), run(clips, 3, 20, max_live=3 * 5)
    torch.testing.assert_close(bounded, free, rtol=0, atol=0)


def test_who_ends_first() -> None:
    """First the unseen, then the improbable; one that comes back is new."""

    def clip(start: int, *squares: tuple[int, float]) -> ClipInstances:
        masks = torch.full((len(squares), 3, 4, 4), -30.0)
        for row, (place, _) in enumerate(squares):
            masks[row, :, place] = 30.0
        return ClipInstances(start, torch.tensor([[p] for _, p in squares]), masks)

    matcher = ClipMatcher(3, max_live=2)
    assert matcher.update(clip(0, (0, 0.9), (1, 0.1))) == [0, 1]
    assert matcher.update(clip(1, (1, 0.1), (2, 0.5))) == [1, 2], "the first was not seen, though probable"
    assert list(matcher.pop_retired()) == [0]
    assert matcher.update(clip(2, (1, 0.1), (2, 0.5), (0, 0.3))) == [1, 2, 3], "the second is the weakest"
    assert list(matcher.pop_retired()) == [1]
    assert matcher.update(clip(3, (0, 0.3), (2, 0.5), (1, 0.2))) == [3, 2, 4]
    assert not matcher.pop_retired(), "found and ended by one clip: nothing remains of it"
    assert list(matcher.instances()) == [2, 3]
    assert matcher.pop_final(6, 9).ids == [2, 3]


@pytest.mark.parametrize("max_live", [0, 3])
def test_goes_on_from_a_saved_state(tmp_path, max_live: int) -> None:
    clips = make_clips(5, 20, 4, 2)
    saved, whole = ClipMatcher(4, max_live), ClipMatcher(4, max_live)
    for number, clip in enumerate(clips):
        if number == 4:
            torch.save(saved.state(), tmp_path / "state.pth")
            saved = ClipMatcher(4, max_live)
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
    assert clip_starts(num_frames, length, stride) == expected
    model = tiny_model(CLIP_MATCHING=True, CLIP_LENGTH=length, CLIP_STRIDE=stride)
    inference = VideoInference(model.network, model.options)
    decoded = []
    decode = inference._decode
    inference._decode = lambda start, end: (decoded.append((start, end)), decode(start, end))
    finals = list(inference.run([torch.rand(3, 32, 32) * 255 for _ in range(num_frames)]))
    assert decoded == [(start, min(start + length, num_frames)) for start in expected]
    assert sum(final.mask_logits.shape[1] for final in finals) == num_frames


@pytest.mark.parametrize(
    ("num_frames", "length", "stride", "max_live"),
    [(10, 3, 1, 0), (10, 4, 3, 0), (9, 3, 3, 0), (2, 5, 1, 0), (10, 3, 1, 12)],
)
def test_a_videos_result_is_the_readable_versions(
    monkeypatch, num_frames: int, length: int, stride: int, max_live: int
) -> None:
    """From frames to scores, labels and masks, with the clips that the network gave."""
    clips = []
    update = ClipMatcher.update
    monkeypatch.setattr(ClipMatcher, "update", lambda self, clip: (clips.append(clip), update(self, clip))[1])
    clipping = {"CLIP_LENGTH": length, "CLIP_STRIDE": stride, "MAX_LIVE_INSTANCES": max_live}
    model = tiny_model(CLIP_MATCHING=True, APPLY_CLS_THRES=0.009, **clipping)
    noise = torch.rand(num_frames + 4, 3, 40, 56)
    images = [255 * noise[t : t + 4].mean(0) for t in range(num_frames)]
    result = model([{"image": images, "height": 80, "width": 112}])
    assert [clip.start for clip in clips] == clip_starts(num_frames, length, stride)
    classes, logits = readable_matching(clips, length, num_frames, max_live)
    expected = scored_classes(classes, model.options)
    assert expected
    assert result["pred_scores"] == [score for _, _, score in expected]
    assert result["pred_labels"] == [label for _, label, _ in expected]
    for (i, _, _), found in zip(expected, result["pred_masks"], strict=True):
        masks = torch.zeros(num_frames, 80, 112, dtype=torch.bool)
        for f in range(num_frames):
            if (i, f) in logits:
                masks[f] = output_masks(logits[i, f][None, None], (40, 56), (80, 112))[0, 0]
        assert (masks == found).float().mean() >= 0.999
