from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from slow_tracking import moved, velocity

from seqformer.tracking import MotionOptions
from seqformer.tracking.path import Path

OPTIONS = MotionOptions(weight=0.5)


def square(x: int, y: int = 3, width: int = 4, height: int = 6) -> torch.Tensor:
    mask = torch.zeros(16, 40)
    mask[y : y + height, x : x + width] = 1
    return mask


def path(*places: int, first: int = 0) -> Path:
    made = Path()
    for frame, x in enumerate(places, start=first):
        made.add(frame, square(x), OPTIONS)
    return made


def test_points_are_centres_of_the_last_frames() -> None:
    made = path(*range(9))
    assert made.points == [(t, t + 1.5, 5.5) for t in range(3, 9)]
    assert torch.equal(made.mask, square(8))


def test_tiny_masks_are_ignored() -> None:
    made = path(2)
    made.add(1, square(9, width=1, height=3), OPTIONS)
    assert len(made.points) == 1 and torch.equal(made.mask, square(2))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=6))
def test_velocity_is_the_slope_of_a_fitted_line(places: list[int]) -> None:
    np.testing.assert_allclose(path(*places).velocity(), velocity(path(*places).points), atol=1e-9)


@given(seed=st.integers(0, 99), speed=st.integers(-9, 9))
def test_predicted_mask_is_the_last_one_moved(seed: int, speed: int) -> None:
    mask = torch.rand(8, 12, generator=torch.Generator().manual_seed(seed))
    made = Path([(t, float(speed * t), -float(t)) for t in range(4)], mask)
    for step, predicted in enumerate(made.predict(range(3, 7))):
        assert np.array_equal(predicted.numpy(), moved(mask.numpy(), speed * step, -step))


def test_nothing_is_predicted_without_a_mask() -> None:
    assert Path().predict(range(3)) is None
    assert Path().distance(path(1)) == path(1).distance(Path()) == float("inf")


@pytest.mark.parametrize(("later", "expected"), [(10, 0.0), (16, 1.0), (4, 1.0)])
def test_distances_are_in_extents(later: int, expected: float) -> None:
    """Two cells per frame: at 4 in frame 2, so at 10 in frame 5; the rectangle is 4 cells wide and 6 high."""
    assert path(0, 2, 4).distance(path(later, first=5)) == pytest.approx(expected)


def test_an_extent_is_the_longer_side_of_the_larger_one() -> None:
    wide, far = Path(), Path()
    wide.add(0, square(2, width=12, height=3), OPTIONS)
    far.add(1, square(14, width=12, height=3), OPTIONS)
    assert wide.distance(far) == far.distance(wide) == pytest.approx(1)
    assert path(2).distance(far) == pytest.approx(np.hypot(16, 1.5) / 12)
