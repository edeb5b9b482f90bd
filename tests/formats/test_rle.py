"""Masks as RLE: conversion, and errors for malformed masks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pycocotools import mask as mask_api

from seqformer.errors import InputError
from seqformer.formats.rle import decode_mask, encode_masks, mask_areas, rle_counts, space_time_iou, to_rle


def runs_of(mask: np.ndarray) -> list[int]:
    """Slow, readable run lengths: column-major, background first."""
    runs, value = [0], 0
    for pixel in mask.flatten(order="F"):
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 2**31))
def test_counts_equal_the_runs(height: int, width: int, density: float, seed: int) -> None:
    mask = (np.random.default_rng(seed).random((height, width)) < density).astype(np.uint8)
    runs = runs_of(mask)
    rle = mask_api.encode(np.asfortranarray(mask))
    assert rle_counts(rle["counts"]).tolist() == runs
    for counts in (rle["counts"], rle["counts"].decode("ascii"), runs):
        converted = to_rle({"size": [height, width], "counts": counts}, height, width)
        assert isinstance(converted["counts"], str)
        np.testing.assert_array_equal(decode_mask(converted), mask)


def test_large_runs_survive() -> None:
    mask = np.zeros((2000, 3000), dtype=np.uint8)
    mask[5, 2999] = 1
    assert rle_counts(mask_api.encode(np.asfortranarray(mask))["counts"]).tolist() == runs_of(mask)


def test_polygons_are_filled() -> None:
    rle = to_rle([[1, 1, 5, 1, 5, 4, 1, 4], [7, 0, 9, 0, 9, 2, 7, 2]], 6, 10)
    expected = np.zeros((6, 10), dtype=np.uint8)
    expected[1:4, 1:5] = 1
    expected[0:2, 7:9] = 1
    np.testing.assert_array_equal(decode_mask(rle), expected)


@pytest.mark.parametrize("nothing", [None, []])
def test_no_mask(nothing: object) -> None:
    assert to_rle(nothing, 4, 5) is None


def test_encode_masks_gives_none_for_empty_frames() -> None:
    masks = np.zeros((3, 7, 5), dtype=bool)
    masks[1, 2:4, 1:] = True
    encoded = encode_masks(masks)
    assert encoded[0] is None and encoded[2] is None
    assert encoded[1]["size"] == [7, 5]
    np.testing.assert_array_equal(decode_mask(encoded[1]), masks[1])


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [4, 5], "counts": [3, 4]}, "cover 7 pixels, not 4 x 5 = 20"),
        ({"size": [4, 5], "counts": [-1, 21]}, "malformed RLE: a run of -1 pixels"),
        ({"size": [4, 5], "counts": [2**30] * 4 + [20]}, "malformed RLE"),
        ({"size": [4, 5], "counts": [2**64, 20]}, "list of integers"),
        ({"size": [4, 5], "counts": [[], 20]}, "list of integers"),
        ({"size": [4, 5], "counts": [2**62] * 4 + [20]}, "list of integers"),
        ({"size": [4, 5], "counts": []}, "list of integers"),
        ({"size": [4, 5], "counts": "\ud800"}, "not a compressed"),
        ({"size": [4, 5], "counts": [1.5, 18.5]}, "list of integers"),
        ({"size": [4, 5], "counts": [[20]]}, "list of integers"),
        ({"size": [4, 5], "counts": "\x01"}, "not a compressed"),
        ({"size": [4, 5], "counts": "é"}, "not a compressed"),
        ({"size": [4, 5], "counts": "o"}, "not a compressed"),
        ({"size": [4, 5], "counts": "ooooooooooo0"}, "not a compressed"),
        ({"size": [4, 5], "counts": ""}, "empty"),
        ({"size": [4, 5], "counts": 7}, "string or a list"),
        ({"size": [5, 4], "counts": [20]}, r"size is \[5, 4\], but the frame's is \[4, 5\]"),
        ({"size": 20, "counts": [20]}, "size is 20"),
        ({"counts": [20]}, "size is None"),
        ({"size": [4, 5]}, "must be a list of polygons"),
        ("mask.png", "must be a list of polygons"),
        ([[1, 2, 3, 4]], "three corners"),
        ([[1, 2, 3, 4, 5, 6, 7]], "three corners"),
        ([1, 2, 3, 4, 5, 6], "malformed polygon"),
        ([["1", "2", "3", "4", "5", "6"]], "malformed polygon"),
        ([[1, 2, 3, 4, 5, float("nan")]], "malformed polygon"),
        ([[1, 2, 3, 4, 5, 1e9]], "malformed polygon"),
    ],
)
def test_malformed_masks_are_refused(segmentation: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        to_rle(segmentation, 4, 5)


LETTERS = st.characters(min_codepoint=48, max_codepoint=111)


@st.composite
def nearly_counts(draw: st.DrawFn) -> str:
    """The counts of a mask of 6x7 pixels, of which some letters are others."""
    bits = draw(st.lists(st.booleans(), min_size=42, max_size=42))
    mask = np.array(bits, dtype=np.uint8).reshape(6, 7)
    counts = list(mask_api.encode(np.asfortranarray(mask))["counts"].decode())
    for place in draw(st.lists(st.integers(0, len(counts) - 1), max_size=2)):
        counts[place] = draw(LETTERS)
    return "".join(counts)


@example("Z1")  # 42 pixels of background
@given(st.text(LETTERS, min_size=1, max_size=12) | nearly_counts())
def test_random_strings_never_reach_pycocotools_unchecked(counts: str) -> None:
    try:
        rle = to_rle({"size": [6, 7], "counts": counts}, 6, 7)
    except InputError:
        return
    assert decode_mask(rle).shape == (6, 7)
    assert rle_counts(counts).sum() == 42


def test_space_time_iou_counts_pixels_of_all_frames() -> None:
    rng = np.random.default_rng(0)
    tracklets = rng.random((5, 4, 9, 8)) < 0.4
    tracklets[1, 2] = tracklets[3] = False
    encoded = [encode_masks(masks) for masks in tracklets]
    iou = space_time_iou(encoded[:2], encoded)
    assert iou.shape == (2, 5) and iou[0, 0] == iou[1, 1] == 1 and iou[0, 3] == 0
    for a in range(2):
        for b in range(5):
            intersection, union = (tracklets[a] & tracklets[b]).sum(), (tracklets[a] | tracklets[b]).sum()
            assert iou[a, b] == pytest.approx(intersection / union)
    np.testing.assert_array_equal(mask_areas(encoded[1]), tracklets[1].sum((1, 2)))
    assert space_time_iou(encoded[3:4], encoded[3:4]) == 0
    assert space_time_iou([], encoded).shape == (0, 5)
