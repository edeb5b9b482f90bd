"""Batches of clips that data-loading processes send in one piece."""

from __future__ import annotations

import io
import pickle
from typing import Any

import torch
from torch import Tensor

__all__ = ["Batch"]

_ALIGNMENT = 16  # bytes


class Batch(list[dict[str, Any]]):
    """A list of clips, as returned by the dataset mappers.

    Between processes all its tensors travel as one. PyTorch would send each in a file of its own, and with
    hundreds of tensors in a batch, receiving them would take longer than a training step on a GPU.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        packer = _Packer(stream := io.BytesIO())
        packer.dump(list(self))
        places, size = [], 0
        for tensor in packer.tensors:
            places.append((size, tensor.dtype, tensor.shape))
            size += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
        buffer = torch.empty(size, dtype=torch.uint8)
        for (start, dtype, shape), tensor in zip(places, packer.tensors, strict=True):
            _view(buffer, start, dtype, shape).copy_(tensor)
        return _unpack, (stream.getvalue(), buffer, places)


class _Packer(pickle.Pickler):
    def __init__(self, stream: io.BytesIO):
        super().__init__(stream, protocol=pickle.HIGHEST_PROTOCOL)
        self.tensors: list[Tensor] = []

    def persistent_id(self, value: Any) -> int | None:
        if not isinstance(value, Tensor):
            return None
        self.tensors.append(value)
        return len(self.tensors) - 1


class _Unpacker(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, tensors: list[Tensor]):
        super().__init__(stream)
        self._tensors = tensors

    def persistent_load(self, index: int) -> Tensor:
        return self._tensors[index]


def _view(buffer: Tensor, start: int, dtype: torch.dtype, shape: torch.Size) -> Tensor:
    return buffer[start : start + shape.numel() * dtype.itemsize].view(dtype).view(shape)


def _unpack(clips: bytes, buffer: Tensor, places: list[tuple[int, torch.dtype, torch.Size]]) -> Batch:
    tensors = [_view(buffer, *place) for place in places]
    return Batch(_Unpacker(io.BytesIO(clips), tensors).load())
