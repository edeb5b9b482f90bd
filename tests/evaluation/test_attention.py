"""Attention figures of a trace with known values."""

from __future__ import annotations

import numpy as np
import pytest

from seqformer.evaluation.attention import AttentionMeasure
from seqformer.formats.rle import encode_masks
from seqformer.inference import Trace

HEIGHT, WIDTH, T = 50, 100, 4


def tracklet(left: int, hidden: tuple[int, ...] = ()) -> list:
    """T masks of x from ``left`` on, 20 pixels wide, and y from 10 to 40."""
    masks = np.zeros((T, HEIGHT, WIDTH), dtype=bool)
    for t in set(range(T)) - set(hidden):
        masks[t, 10:40, left : left + 20] = True
    return encode_masks(masks)


@pytest.fixture
def trace() -> Trace:
    """One layer, two queries, one head and level, two points. Query 1 is instance 0, at x from 20 to 40.

    One of its points lies inside, with three quarters of the attention; in frame 1 both are outside.
    """
    locations = np.zeros((1, T, 2, 1, 1, 2, 2), np.float32)
    locations[0, :, 1, 0, 0] = [[0.3, 0.5], [0.3, 0.9]]
    locations[0, 1, 1, 0, 0] = [[0.1, 0.5], [0.5, 0.5]]
    attention = np.zeros((1, T, 2, 1, 1, 2), np.float32)
    attention[..., :] = [0.75, 0.25]
    temporal = np.full((1, T, 2), 0.25, np.float32)
    temporal[0, :, 1] = [0.4, 0.4, 0.15, 0.05]
    return Trace(
        sampling_locations=locations,
        attention_weights=attention,
        reference_points=np.zeros((T, 2, 2), np.float32),
        boxes=np.zeros((1, T, 2, 4), np.float32),
        temporal_weights=temporal,
        class_probabilities=np.zeros((1, 2, 1), np.float32),
        queries=np.array([1, 0]),
        segmentations=[tracklet(20), tracklet(70)],
    )


def test_visible_and_hidden_frames(trace: Trace) -> None:
    measure = AttentionMeasure()
    never_seen = [None] * T
    measure.update(trace, [tracklet(45), tracklet(20, hidden=(2, 3)), never_seen])
    figures = measure.figures()
    assert (figures.instances, figures.predicted, figures.partly_hidden) == (2, 1, 1)
    np.testing.assert_allclose(figures.weight_visible, [1.6], rtol=1e-5)
    np.testing.assert_allclose(figures.weight_hidden, [0.4], rtol=1e-5)
    # Frame 0 has one of two points inside, frame 1 none.
    np.testing.assert_allclose(figures.points_inside, [0.25], rtol=1e-5)
    np.testing.assert_allclose(figures.weight_inside, [0.375], rtol=1e-5)


def test_always_visible_instances_have_no_hidden_frames(trace: Trace) -> None:
    measure = AttentionMeasure()
    measure.update(trace, [tracklet(20), tracklet(70)])
    figures = measure.figures()
    assert (figures.instances, figures.predicted, figures.partly_hidden) == (2, 2, 0)
    assert np.isnan(figures.weight_visible).all() and np.isnan(figures.weight_hidden).all()
    np.testing.assert_allclose(figures.points_inside, [3 / 16], rtol=1e-5)


def test_missed_instances_are_not_measured(trace: Trace) -> None:
    measure = AttentionMeasure()
    measure.update(trace, [tracklet(33)])
    assert (measure.figures().instances, measure.figures().predicted) == (1, 0)
    assert np.isnan(measure.figures().points_inside).all()
