"""Outlines of masks: exact, by the rule that readers fill polygons with."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqformer.formats.polygons import area, joined, outlines
from seqformer.formats.rle import decode_mask, to_rle


def filled(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    return decode_mask(to_rle([polygon.flatten().tolist()], height, width)).astype(bool)


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 4), st.floats(0, 1), st.integers(0, 2**32))
def test_outlines_give_the_mask(height: int, width: int, scale: int, density: float, seed: int) -> None:
    coarse = np.random.default_rng(seed).random((height, width)) < density
    mask = np.kron(coarse, np.ones((scale, scale))) > 0
    polygons = outlines(mask)
    assert sum(map(area, polygons)) == mask.sum()
    if not polygons:
        return
    parts = [filled(polygon, *mask.shape) for polygon in polygons]
    np.testing.assert_array_equal(np.logical_xor.reduce(parts), mask)
    sizes = [abs(area(polygon)) for polygon in polygons]
    assert sizes == sorted(sizes, reverse=True)
    normalised = (joined(polygons) / mask.shape[::-1]).round(7)
    np.testing.assert_array_equal(filled(normalised * mask.shape[::-1], *mask.shape), mask)


def test_corners_parts_and_holes() -> None:
    mask = np.zeros((6, 9), dtype=bool)
    mask[1:5, 1:5] = True
    mask[2, 3] = False
    mask[5, 5] = True  # touches the first part at a corner
    first, hole, second = outlines(mask)
    assert first.tolist() == [[1, 1], [5, 1], [5, 5], [1, 5]]
    assert sorted(hole.tolist()) == [[3, 2], [3, 3], [4, 2], [4, 3]]
    assert sorted(second.tolist()) == [[5, 5], [5, 6], [6, 5], [6, 6]]
    assert [area(first), area(hole), area(second)] == [16, -1, 1]


@pytest.mark.parametrize("shape", [(1, 1), (3, 5)])
def test_nothing_and_everything(shape: tuple[int, int]) -> None:
    assert outlines(np.zeros(shape, dtype=bool)) == []
    (polygon,) = outlines(np.ones(shape, dtype=bool))
    height, width = shape
    assert polygon.tolist() == [[0, 0], [width, 0], [width, height], [0, height]]
