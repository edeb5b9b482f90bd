"""Checks frames given by users and converts them to RGB arrays."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from seqformer.errors import InputError

__all__ = ["check_tensor_layout", "to_rgb_array"]

_LAYOUTS = {"CHW": "(3, H, W)", "HWC": "(H, W, 3)"}


def check_tensor_layout(tensor_layout: str) -> None:
    """Raises an InputError unless it is "CHW" or "HWC"."""
    if tensor_layout not in _LAYOUTS:
        raise InputError(f"`tensor_layout` must be one of {', '.join(_LAYOUTS)}, not {tensor_layout!r}")


def to_rgb_array(frame: object, tensor_layout: str = "CHW") -> np.ndarray:
    """Converts a frame to an (H, W, 3) uint8 RGB array.

    Args:
        frame: an (H, W, 3) uint8 NumPy array, a PIL image of mode "RGB", or a uint8 tensor on any device.
        tensor_layout: order of a tensor's dimensions, "CHW" or "HWC".

    Raises:
        InputError: if it is something else or empty; the message says what it is.
    """
    if isinstance(frame, Image.Image):
        if frame.mode != "RGB":
            raise InputError(f"a PIL image of mode {frame.mode!r}, not 'RGB': use image.convert('RGB')")
        array = np.asarray(frame)
    elif isinstance(frame, torch.Tensor):
        channels = tensor_layout.index("C")
        if frame.dtype != torch.uint8 or frame.dim() != 3 or frame.shape[channels] != 3:
            raise _unusable("tensor", str(frame.dtype).removeprefix("torch."), frame.shape, tensor_layout)
        array = frame.detach().cpu().movedim(channels, 2).numpy()
    elif isinstance(frame, np.ndarray):
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise _unusable("array", str(frame.dtype), frame.shape, tensor_layout)
        array = frame
    else:
        raise InputError(f"{type(frame).__name__} is not a frame: {_expected(tensor_layout)}")
    if not array.size:
        raise InputError(f"a frame of {array.shape[1]}x{array.shape[0]} pixels is empty")
    return array


def _unusable(kind: str, dtype: str, shape: tuple[int, ...], tensor_layout: str) -> InputError:
    return InputError(f"{kind} of {dtype}, shape {tuple(shape)}: {_expected(tensor_layout)}")


def _expected(tensor_layout: str) -> str:
    return (
        "give RGB frames as uint8 NumPy arrays (H, W, 3), PIL images of mode 'RGB', or uint8 tensors "
        f"{_LAYOUTS[tensor_layout]} (tensor_layout={tensor_layout!r})"
    )
