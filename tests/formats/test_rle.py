"""Masks as RLE: conversion, and errors for malformed masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pycocotools import mask as mask_api

from seqformer.errors import InputError
from seqformer.formats.rle import (
    checked_rles,
    decode_mask,
    encode_masks,
    frame_iou,
    mask_areas,
    rle_counts,
    space_time_iou,
    to_rle,
)


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


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [4, 5], "counts": [3, 4]}, "cover 7 pixels, not 4 x 5 = 20"),
        ({"size": [4, 5], "counts": [-1, 21]}, "malformed RLE: a run of -1 pixels"),
        ({"size": [4, 5], "counts": [2**30] * 4 + [20]}, "malformed RLE"),
        ({"size": [4, 5], "counts": [2**32]}, "cover 4294967296 pixels"),
        ({"size": [4, 5], "counts": [2**32 - 20] * 40}, "malformed RLE"),
        ({"size": [4, 5], "counts": "P" * 6 + "0" * 5}, "malformed RLE"),
        ({"size": [4, 5], "counts": nested(900)}, "list of integers"),
        ({"size": nested(900), "counts": [20]}, r"the mask's size is \["),
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


@given(st.lists(st.none() | nearly_counts() | st.text(LETTERS, max_size=6), max_size=6))
def test_masks_checked_together_are_those_that_pass_alone(strings: list[str | None]) -> None:
    masks = [None if counts is None else {"size": [6, 7], "counts": counts} for counts in strings]

    def passes(mask: dict | None) -> bool:
        try:
            return to_rle(mask, 6, 7) == mask
        except InputError:
            return False

    checked = checked_rles(masks, 6, 7)
    assert (checked is not None) == all(map(passes, masks))
    assert checked is None or checked == masks


@pytest.mark.parametrize(
    "mask",
    [
        [],
        [[1, 1, 5, 1, 5, 4]],
        {"size": [6, 7], "counts": [42]},
        {"size": [7, 6], "counts": "Z1"},
        {"size": [6, 7], "counts": b"Z1"},
        {"size": (6, 7), "counts": "Z1"},
        {"size": [6, 7], "counts": "Zé"},
        {"size": [6, 7]},
        "Z1",
    ],
)
def test_other_forms_of_masks_are_not_checked_together(mask: object) -> None:
    good = {"size": [6, 7], "counts": "Z1"}
    assert checked_rles([good, None], 6, 7) == [good, None]
    assert checked_rles([good, mask], 6, 7) is None


@pytest.mark.parametrize(
    ("runs", "joined"),
    [
        ([0, 10, 0, 10, 172], [0, 20, 172]),
        ([5, 0, 5, 0, 182], [192]),
        ([0, 0, 20, 172], [20, 172]),
        ([20, 172, 0], [20, 172]),
        ([0, 3, 0, 0, 0, 4, 185], [0, 7, 185]),
    ],
)
def test_equal_masks_with_empty_runs_have_an_iou_of_1(runs: list[int], joined: list[int]) -> None:
    """pycocotools would compute 0 for some of them."""
    plain = to_rle({"size": [12, 16], "counts": joined}, 12, 16)
    as_text = "".join(letters(run, runs[n - 2] if n > 2 else 0) for n, run in enumerate(runs))
    for counts in (runs, as_text):
        assert rle_counts(counts).tolist() == runs
        mask = {"size": [12, 16], "counts": counts}
        assert checked_rles([mask], 12, 16) is None
        assert to_rle(mask, 12, 16) == plain
    assert frame_iou([[plain]], [[plain]]) == (1 if sum(joined[1::2]) else 0)


def letters(run: int, before: int) -> str:
    """The text of one number of a compressed RLE, slowly."""
    value, text = run - before, ""
    while True:
        low, value = value & 0x1F, value >> 5
        more = value != (-1 if low & 0x10 else 0)
        text += chr(48 + (low | 0x20 * more))
        if not more:
            return text


def test_frame_iou_is_that_of_each_frame() -> None:
    rng = np.random.default_rng(1)
    masks = rng.random((5, 4, 9, 8)) < 0.4
    masks[1, 2] = masks[4, 2] = masks[3] = False
    encoded = [encode_masks(tracklet) for tracklet in masks]
    iou = frame_iou(encoded[:2], encoded[2:])
    assert iou.shape == (4, 2, 3)
    for t, a, b in np.ndindex(iou.shape):
        first, second = masks[a, t], masks[2 + b, t]
        union = (first | second).sum()
        assert iou[t, a, b] == ((first & second).sum() / union if union else 0)


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


def test_long_outlines_are_refused_before_memory_is_taken() -> None:
    """pycocotools takes 50 bytes for each pixel of a side."""
    spikes = [0, 0] + [99_999, 0, 0, 99_999] * 250
    for side in (4, 20_000):
        with pytest.raises(InputError, match="its sides have a length of"):
            to_rle([spikes], side, side)
    assert to_rle([[0, 0, 20_000, 0, 20_000, 20_000]], 20_000, 20_000) is not None
