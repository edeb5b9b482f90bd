from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from seqformer.errors import InputError
from seqformer.inference.frames import check_tensor_layout, to_rgb_array

FRAME = np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8)  # fits both layouts


@pytest.mark.parametrize(
    ("frame", "layout"),
    [
        (FRAME, "CHW"),
        (np.asfortranarray(FRAME), "CHW"),
        (FRAME[::-1, ::-1][::-1, ::-1], "HWC"),
        (Image.fromarray(FRAME), "CHW"),
        (torch.from_numpy(FRAME), "HWC"),
        (torch.from_numpy(FRAME.transpose(2, 0, 1).copy()), "CHW"),
        (torch.from_numpy(FRAME).permute(2, 0, 1), "CHW"),
    ],
)
def test_all_forms_give_the_same_array(frame: object, layout: str) -> None:
    found = to_rgb_array(frame, layout)
    assert found.dtype == np.uint8 and np.array_equal(found, FRAME)


def test_a_layout_is_not_guessed() -> None:
    """A tensor with three rows fits both layouts; the caller chooses."""
    tensor = torch.from_numpy(FRAME)
    assert np.array_equal(to_rgb_array(tensor, "CHW"), FRAME.transpose(1, 2, 0))
    with pytest.raises(InputError, match=r"`tensor_layout` must be one of CHW, HWC, not 'NCHW'"):
        check_tensor_layout("NCHW")


@pytest.mark.parametrize(
    ("frame", "what"),
    [
        (FRAME / 255.0, r"array of float64, shape \(3, 5, 3\)"),
        (FRAME.astype(np.float32), "array of float32"),
        (FRAME.astype(np.uint16), "array of uint16"),
        (FRAME.astype(bool), "array of bool"),
        (FRAME[..., 0], r"array of uint8, shape \(3, 5\)"),
        (FRAME[..., :1], r"array of uint8, shape \(3, 5, 1\)"),
        (np.zeros((3, 5, 4), np.uint8), r"array of uint8, shape \(3, 5, 4\)"),
        (np.zeros((3, 4, 5), np.uint8), r"array of uint8, shape \(3, 4, 5\)"),
        (FRAME[None], r"shape \(1, 3, 5, 3\)"),
        (torch.zeros(3, 4, 5), r"tensor of float32, shape \(3, 4, 5\)"),
        (torch.zeros(4, 5, 3, dtype=torch.uint8), r"tensor of uint8, shape \(4, 5, 3\)"),
        (Image.new("L", (5, 3)), "PIL image of mode 'L'"),
        (Image.new("RGBA", (5, 3)), "PIL image of mode 'RGBA'"),
        (FRAME.tolist(), "list is not a frame"),
        ("frame.png", "str is not a frame"),
        (None, "NoneType is not a frame"),
        (np.zeros((0, 5, 3), np.uint8), "a frame of 5x0 pixels is empty"),
    ],
)
def test_invalid_frames(frame: object, what: str) -> None:
    with pytest.raises(InputError, match=what) as error:
        to_rgb_array(frame)
    if "mode" not in what and "empty" not in what:
        assert "give RGB frames as uint8 NumPy arrays (H, W, 3)" in str(error.value)


@given(
    shape=st.lists(st.integers(0, 5), min_size=0, max_size=4),
    dtype=st.sampled_from(["uint8", "int64", "float32", "bool"]),
    tensor=st.booleans(),
    layout=st.sampled_from(["CHW", "HWC"]),
)
def test_accepted_frames_are_valid(shape: list[int], dtype: str, tensor: bool, layout: str) -> None:
    frame = np.zeros(shape, dtype=dtype)
    try:
        found = to_rgb_array(torch.from_numpy(frame) if tensor else frame, layout)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert found.ndim == 3 and found.shape[2] == 3 and found.dtype == np.uint8 and found.size
