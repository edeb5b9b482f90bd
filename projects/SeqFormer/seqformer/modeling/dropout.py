"""Dropout that takes less time and memory on CPUs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

__all__ = ["Dropout", "dropout"]

_VALUES = 1 << 16  # of a random number of 16 bits
_CHUNK = 1 << 19  # elements that are processed together, so that they stay in the cache


def dropout(x: Tensor, p: float, *, relu: bool = False) -> Tensor:
    """Sets elements to zero with probability ``p`` and scales the others, after a ReLU if asked.

    On CPUs, PyTorch draws a float for every element and keeps it for the backward pass. Here four elements
    share a draw of 64 bits. The backward pass needs one byte for each element, and after a ReLU nothing but
    the output. The probability is rounded to a multiple of 1/65536.
    """
    dropped = round(p * _VALUES)
    if x.device.type != "cpu" or torch.compiler.is_compiling() or not 0 < dropped < _VALUES:
        return F.dropout(F.relu(x) if relu else x, p)
    output: Tensor = _Dropout.apply(x, dropped, relu)
    return output


class Dropout(nn.Dropout):
    """PyTorch's module with :func:`dropout`."""

    def forward(self, input: Tensor) -> Tensor:
        """(...) -> (...)."""
        return dropout(input, self.p) if self.training else input


class _Dropout(Function):
    """Drops ``dropped`` of 65536 elements, in the mean, and scales the others."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dropped: int, relu: bool) -> Tensor:
        ctx.scale = _VALUES / (_VALUES - dropped)
        ctx.relu = relu
        x = x.contiguous()
        output, lost = torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)
        bits = torch.empty(-(-min(_CHUNK, x.numel()) // 4), dtype=torch.int64)
        for source, target, zeroed in _chunks(x, output, lost):
            random = bits.random_(torch.iinfo(torch.int64).min, None).view(torch.int16)[: len(source)]
            torch.lt(random, dropped - _VALUES // 2, out=zeroed)
            torch.mul(source, ctx.scale, out=target)
            if relu:
                target.clamp_(min=0)
            target.masked_fill_(zeroed, 0)
        ctx.save_for_backward(output if relu else lost)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        gradient, (saved,) = gradients[0].contiguous(), ctx.saved_tensors
        result = torch.empty_like(gradient)
        for source, target, kept in _chunks(gradient, result, saved):
            if ctx.relu:
                torch.ops.aten.threshold_backward(source, kept, 0, grad_input=target)
                target.mul_(ctx.scale)
            else:
                torch.mul(source, ctx.scale, out=target).masked_fill_(kept, 0)
        return result, None, None


def _chunks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yields flat parts of contiguous tensors of one shape."""
    for parts in zip(*(t.view(-1).split(_CHUNK) for t in tensors), strict=True):
        if len(parts[0]):
            yield parts
