from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import tiny_model
from slow_tracking import Tracker, clip_starts, readable_motion

from seqformer.inference.video import VideoInference
from seqformer.tracking import (
    ClipInstances,
    InstanceStore,
    MotionOptions,
    assign_by_motion,
    assign_by_overlap,
)
from seqformer.tracking.motion import _blurred

SIZE = (16, 48)
LENGTH = 3


def make_tracker(
    length: int = LENGTH, max_active: int = 0, limit: int = 10, duplicate_iou: float = 0.5, **options: float
) -> Tracker:
    motion = MotionOptions(**{"weight": 0.7, "memory": 4, **options})
    assign = partial(assign_by_motion, options=motion, duplicate_iou=duplicate_iou, limit=limit)
    return Tracker(InstanceStore(length, max_active, motion), assign)


def person(x: float, y: int = 2, height: int = 10) -> torch.Tensor:
    """Logits (h, w) of a person 4 cells wide, whose left edge is at ``x``."""
    mask = torch.full(SIZE, -9.0)
    mask[y : y + height, max(round(x), 0) : max(round(x) + 4, 0)] = 9.0
    return mask


def clip(start: int, *masks: list[torch.Tensor], scores: tuple[float, ...] = ()) -> ClipInstances:
    """One list of T masks for every instance."""
    classes = torch.tensor(scores or [0.9] * len(masks)).reshape(-1, 1)
    stacked = torch.stack([torch.stack(m) for m in masks]) if masks else torch.zeros(0, LENGTH, *SIZE)
    return ClipInstances(start, classes, stacked)


def crossing(start: int) -> ClipInstances:
    """Two people who walk past each other; the first mask is always the one further left."""
    frames = range(start, start + LENGTH)
    places = [sorted((2 + 2 * t, 42 - 2 * t)) for t in frames]
    return clip(start, [person(a) for a, _ in places], [person(b) for _, b in places])


def test_people_who_cross_keep_their_ids() -> None:
    """Masks that drift to the other person agree with the next clip; only motion tells them apart."""
    by_overlap = Tracker(InstanceStore(LENGTH), assign_by_overlap)
    by_movement = make_tracker()
    ids = {by_overlap: [], by_movement: []}
    for start in range(18):
        for m, found in ids.items():
            found.append(m.update(crossing(start)))
            m.store.pop_final(start + 1, 8)
    assert ids[by_overlap][-1] == [0, 1], "an ID switch"
    assert ids[by_movement][0] == [0, 1]
    assert ids[by_movement][-1] == [1, 0]


def walk(missed: range, memory: int) -> list[int | None]:
    """Ids of a walking person, next to a standing one, whom the clips in ``missed`` do not detect."""
    walker, m = [], make_tracker(memory=memory)
    for start in range(16):
        standing = [person(40)] * LENGTH
        walking = [person(2 + 2 * t) for t in range(start, start + LENGTH)]
        ids = m.update(clip(start, standing, *([] if start in missed else [walking])))
        assert ids[0] == 0
        walker.append(ids[1] if len(ids) > 1 else None)
        m.store.pop_final(start + 1, 8)
        assert len(m.store.clips) <= LENGTH
    return walker


@pytest.mark.parametrize(("missed", "expected"), [(3, 1), (4, 1), (5, 2)])
def test_lost_instance_is_recovered_where_motion_leads(missed: int, expected: int) -> None:
    ids = walk(range(5, 5 + missed), memory=5)
    assert ids == [1] * 5 + [None] * missed + [expected] * (11 - missed)


def test_overlap_works_without_memory() -> None:
    """As without motion, an instance is active while its masks share frames with a new clip."""
    assert set(walk(range(5, 6), memory=0)) == {1, None}


def test_a_more_probable_duplicate_does_not_take_the_id() -> None:
    """It does not add an instance either; the instance keeps its own masks."""
    m = make_tracker()
    own = [person(20)] * LENGTH
    shifted = [person(21)] * LENGTH  # IoU 0.6
    assert m.update(clip(0, own, shifted, scores=(0.8, 0.5))) == [0, None]
    assert m.update(clip(1, shifted, own, scores=(0.9, 0.8))) == [None, 0]
    elsewhere = [person(2)] * LENGTH
    assert m.update(clip(2, elsewhere, own, scores=(0.9, 0.8))) == [1, 0]


def test_only_one_of_two_instances_with_the_same_masks_continues() -> None:
    """She walks behind him and is not detected; her query predicts his mask."""
    m = make_tracker()
    him = [person(20)] * LENGTH
    assert m.update(clip(0, him)) == [0]
    for start in range(1, 4):
        her = [person(32 - 3 * t) for t in range(start, start + LENGTH)]
        assert m.update(clip(start, him, her, scores=(0.8, 0.9))) == [0, 1]
        m.store.pop_final(start + 1, 8)
    assert m.update(clip(4, him, him, scores=(0.8, 0.9)))[:2] in ([0, None], [None, 0])
    m.store.pop_final(5, 8)
    passed = [person(32 - 3 * t) for t in range(6, 6 + LENGTH)]
    assert m.update(clip(6, him, passed)) == [0, 1], "she is recovered"


def test_improbable_and_excess_instances_are_dropped() -> None:
    people = [[person(x)] * LENGTH for x in (0, 10, 20, 30)]
    m = make_tracker(limit=2)
    assert m.update(clip(0, *people, scores=(0.3, 0.09, 0.8, 0.5))) == [None, None, 0, 1]
    assert m.update(clip(1, *people, scores=(0.9, 0.9, 0.2, 0.05))) == [2, None, 0, None]
    assert list(m.store.instances) == [0, 1, 2]
    m.update(clip(2))
    m.store.finish()
    assert m.store.pop_final(2 + LENGTH, 8).ids == [0, 1, 2]
    torch.testing.assert_close(
        m.store.pop_retired(), {i: torch.tensor([p]) for i, p in enumerate((0.5, 0.5, 0.9))}
    )
    assert not m.store.instances


def test_limit_of_active_instances_includes_lost_ones() -> None:
    m = make_tracker(max_active=1, memory=9)
    assert m.update(clip(0, [person(2)] * LENGTH)) == [0]
    for start in range(1, 5):
        m.update(clip(start))
        m.store.pop_final(start + 1, 8)
    assert list(m.store.instances) == [0], "active, although no clip contains it"
    assert m.update(clip(5, [person(30)] * LENGTH)) == [1]
    assert list(m.store.pop_retired()) == [0]
    assert m.update(clip(6, [person(2)] * LENGTH, [person(30)] * LENGTH)) == [2, 1]
    assert list(m.store.instances) == [1]


def random_clips(seed: int, count: int, stride: int = 1) -> list[ClipInstances]:
    """Walking people, some of whom each clip detects."""
    g = torch.Generator().manual_seed(seed)
    place, speed = torch.rand(6, generator=g) * 40, torch.rand(6, generator=g) * 4 - 2
    clips = []
    for start in range(0, count * stride, stride):
        found = [o for o in range(6) if torch.rand(1, generator=g) < 0.7]
        masks = [
            [person(float(place[o] + speed[o] * t) % 44, o) for t in range(start, start + LENGTH)]
            for o in found
        ]
        clips.append(clip(start, *masks, scores=tuple(torch.rand(len(found), generator=g).tolist())))
    return clips


def drifting_clips(seed: int, num_frames: int, length: int, stride: int) -> list[ClipInstances]:
    """Rectangles that move, vanish and reappear; clips miss some and duplicate others."""
    g = torch.Generator().manual_seed(seed)
    size, objects = (14, 26), 5
    place = torch.rand(objects, 2, generator=g) * torch.tensor([20.0, 9.0])
    speed = torch.randn(objects, 2, generator=g) * 1.2
    sides = torch.randint(2, 8, (objects, 2), generator=g)
    clips = []
    for start in clip_starts(num_frames, length, stride):
        frames = range(start, min(start + length, num_frames))
        found = [o for o in range(objects) if torch.rand(1, generator=g) < 0.7]
        rows = found + [o for o in found if torch.rand(1, generator=g) < 0.3]
        masks = torch.full((len(rows), len(frames), *size), -6.0)
        for row, o in enumerate(rows):
            for t in frames:
                x, y = (int(n) for n in place[o] + speed[o] * t)
                w, h = sides[o].tolist()
                masks[row, t - start, max(y, 0) : max(y + h, 0), max(x, 0) : max(x + w, 0)] = 6.0
        masks += 2 * torch.randn(masks.shape, generator=g)
        clips.append(ClipInstances(start, torch.rand(len(rows), 2, generator=g) ** 2, masks))
    return clips


@settings(max_examples=40)
@given(
    seed=st.integers(0, 1000),
    num_frames=st.integers(1, 16),
    length=st.integers(2, 7),
    stride=st.integers(1, 7),
    memory=st.integers(0, 6),
    duplicate_iou=st.sampled_from([0.3, 0.5, 1.0]),
    limit=st.sampled_from([2, 4, 10]),
)
def test_agrees_with_the_readable_version(
    seed, num_frames, length, stride, memory, duplicate_iou, limit
) -> None:
    """The ids of every clip are the same, and the same instances are dropped."""
    clips = drifting_clips(seed, num_frames, length, min(stride, length))
    options = MotionOptions(weight=0.7, memory=memory)
    tracker = make_tracker(length, limit=limit, duplicate_iou=duplicate_iou, memory=memory)
    found = []
    for clip in clips:
        found.append(tracker.update(clip))
        while tracker.store.pop_final(clip.start + 1, 8) is not None:
            pass
    assert found == readable_motion(clips, length, options, duplicate_iou, limit)


def test_the_random_problems_have_all_cases() -> None:
    """Some instances are continued, new, dropped and recovered in these problems."""
    continued = begun = left_out = again = 0
    for seed in range(20):
        clips = drifting_clips(seed, 16, 3, 1)
        tracker, last, seen = make_tracker(length=3, memory=5), [], set()
        for number, clip in enumerate(clips):
            ids = tracker.update(clip)
            tracker.store.pop_final(clip.start + 1, 8)
            left_out += ids.count(None)
            for i in set(ids) - {None}:
                recent = {j for before in last[-3:] for j in before}
                continued += i in recent
                again += i in seen - recent
                begun += number > 0 and i not in seen
            seen |= set(ids)
            last.append(ids)
    assert min(continued, begun, left_out, again) >= 10


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), stride=st.integers(1, 3), late=st.integers(1, 3))
def test_results_do_not_depend_on_when_frames_are_popped(seed: int, stride: int, late: int) -> None:
    """At once, or some clips later."""
    at_once, at_leisure = make_tracker(), make_tracker()
    for number, c in enumerate(random_clips(seed, 10, stride)):
        assert at_once.update(c) == at_leisure.update(c)
        at_once.store.pop_final(c.start + 1, 8)
        if number % late == 0:
            at_leisure.store.pop_final(c.start + 1, 8)


@settings(max_examples=10)
@given(seed=st.integers(0, 1000))
def test_every_instance_retires_once_and_the_state_does_not_grow(seed: int) -> None:
    m, retired, masks = make_tracker(), [], set()
    clips = random_clips(seed, 30)
    for c in clips:
        ids = [i for i in m.update(c) if i is not None]
        assert not set(ids) & set(retired)
        if c is clips[-1]:
            m.store.finish()
        while (final := m.store.pop_final(c.end if c is clips[-1] else c.start + 1, 8)) is not None:
            masks |= set(final.ids)
            assert not set(final.ids) & set(retired)
        retired += m.store.pop_retired()
        assert len(m.store.instances) <= 4 * 10
        assert all(len(instance.path.points) <= 6 for instance in m.store.instances.values())
    assert not m.store.instances
    assert sorted(retired) == sorted(masks) == list(range(m.store.new_id()))


def test_continues_from_a_saved_state(tmp_path) -> None:
    saved, whole = make_tracker(), make_tracker()
    for number, c in enumerate(random_clips(3, 14)):
        if number == 7:
            torch.save(saved.store.state(), tmp_path / "state.pth")
            saved = make_tracker()
            saved.store.restore(torch.load(tmp_path / "state.pth", weights_only=True))
        assert saved.update(c) == whole.update(c)
        first, second = saved.store.pop_final(c.start + 1, 8), whole.store.pop_final(c.start + 1, 8)
        torch.testing.assert_close(first.mask_logits, second.mask_logits, rtol=0, atol=0)
        torch.testing.assert_close(saved.store.pop_retired(), whole.store.pop_retired(), rtol=0, atol=0)


@pytest.mark.parametrize(("length", "stride"), [(3, 1), (3, 3), (2, 1), (20, 1)])
def test_a_whole_video(length: int, stride: int) -> None:
    """The observer gets the tracked instances, and all of them are results."""
    model = tiny_model(
        CLIP_MATCHING=True,
        CLIP_LENGTH=length,
        CLIP_STRIDE=stride,
        MOTION_WEIGHT=0.7,
        DUPLICATE_IOU=0.5,
        APPLY_CLS_THRES=0.0,
    )
    with torch.no_grad():
        model.network.detr.class_embed[-1].bias += 3  # probable enough to be tracked
        model.network.controller.layers[-1].bias[-1] = 1
    seen, frames, ended = set(), 0, []
    inference = VideoInference(
        model.network, model.options, observer=lambda c: seen.update(c.ids) or check(c)
    )

    def check(decoded) -> None:
        assert len(decoded.queries) == len(decoded.ids) == len(set(decoded.ids))

    for final in inference.run([torch.rand(3, 40, 60) * 255 for _ in range(7)]):
        frames += final.mask_logits.shape[1]
        ended += [e.instance_id for e in inference.pop_retired()]
    assert frames == 7
    assert sorted(ended) == sorted(seen)
    assert ended


@pytest.mark.parametrize("shape", [(3, 2, 5, 7), (1, 1, 1, 1), (0, 3, 4, 4)])
def test_blurred_masks_are_means_of_3x3_cells(shape: tuple[int, ...]) -> None:
    """Exactly those of PyTorch's pooling; cells outside are zero."""
    masks = torch.rand(shape)
    assert torch.equal(_blurred(masks), F.avg_pool2d(masks, 3, stride=1, padding=1))
