from __future__ import annotations

import pytest

from seqformer.structures import EndedInstance, FrameInstance, FrameResult, Tracklet
from seqformer.tracking import TrackletBuilder

RLE = {"size": [2, 2], "counts": "04"}
OTHER = {"size": [2, 2], "counts": "13"}
FRAMES = [
    FrameResult(0, [FrameInstance(0, 1, 0.5, RLE), FrameInstance(1, 0, 0.01, RLE)], []),
    FrameResult(1, [FrameInstance(0, 0, 0.6, OTHER)], [EndedInstance(1, [])]),
    FrameResult(2, [FrameInstance(2, 0, 0.7, RLE)], [EndedInstance(0, [(0, 0.6), (1, 0.4)])]),
]


def test_tracklets_at_any_time() -> None:
    """Ended instances have their final scores, others the current ones; all lists have the same length."""
    builder = TrackletBuilder()
    made = []
    for frame in FRAMES:
        builder.add([frame])
        made.append(builder.result((2, 2)))
    assert [[(t.instance_id, t.label, t.score) for t in result.tracklets] for result in made] == [
        [(0, 1, 0.5), (1, 0, 0.01)],
        [(0, 0, 0.6)],
        [(0, 0, 0.6), (0, 1, 0.4), (2, 0, 0.7)],
    ]
    assert [(result.height, result.width, result.length) for result in made] == [(2, 2, t) for t in (1, 2, 3)]
    assert [t.segmentations for t in made[2].tracklets] == [[RLE, OTHER, None]] * 2 + [[None, None, RLE]]
    assert made[2].tracklets[0].segmentations is made[2].tracklets[1].segmentations


def test_iterating_gives_the_same_tracklets() -> None:
    for most in (None, 2):
        builder = TrackletBuilder(most)
        builder.add(FRAMES)
        assert list(builder.tracklets((2, 2))) == builder.result((2, 2)).tracklets


def test_limited_tracklets_are_sorted_by_score() -> None:
    builder = TrackletBuilder(limit=2)
    builder.add(FRAMES)
    found = [(t.instance_id, t.label, t.score) for t in builder.result((2, 2)).tracklets]
    assert found == [(2, 0, 0.7), (0, 0, 0.6)]


@pytest.mark.parametrize(
    ("names", "expected"), [([], ["class 0", "class 1", "class 0"]), (["cat", "dog"], ["cat", "dog", "cat"])]
)
def test_classes_have_names(names: list[str], expected: list[str]) -> None:
    builder = TrackletBuilder(class_names=names)
    builder.add(FRAMES)
    tracklets = builder.result((2, 2)).tracklets
    assert [t.class_name for t in tracklets] == expected
    assert {t.size for t in tracklets} == {(2, 2)}


def test_instance_that_was_never_visible() -> None:
    for keep_empty, expected in ((True, [Tracklet(3, 0, 0.9, [None], "class 0", (2, 2))]), (False, [])):
        builder = TrackletBuilder(keep_empty=keep_empty)
        builder.add([FrameResult(0, [], [EndedInstance(3, [(0, 0.9)]), EndedInstance(4, [])])])
        assert builder.result((2, 2)).tracklets == expected
