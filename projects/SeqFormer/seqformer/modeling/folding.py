"""Frozen batch norms folded into the convolutions before them, where no gradient is needed."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import Tensor, nn

__all__ = ["FoldedCopy", "fold_batch_norms"]


class FoldedCopy:
    """Keeps a folded copy of a module, and makes another one when the module's tensors have changed.

    The copy shares all tensors but the folded weights. It belongs to no module, so checkpoints do not contain
    it; copies and pickles of this object are empty.
    """

    def __init__(self) -> None:
        self._copy: nn.Module | None = None
        self._tensors: list[Tensor] = []
        self._state: list[Any] = []

    def __reduce__(self) -> tuple[type[FoldedCopy], tuple[()]]:
        return FoldedCopy, ()

    def of(self, module: nn.Module, images: Tensor) -> nn.Module:
        """Returns the copy of a module for such images; the module itself if it has nothing to fold."""
        tensors = [*module.parameters(), *module.buffers()]
        state = [(t.device, t.dtype, _version(t)) for t in tensors]
        same = [id(t) for t in tensors] == [id(t) for t in self._tensors] and state == self._state
        if self._copy is None or not same:
            self._copy = fold_batch_norms(module, images)
            self._tensors, self._state = tensors, state
        return self._copy


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


@torch.no_grad()
def fold_batch_norms(module: nn.Module, images: Tensor) -> nn.Module:
    """Returns a copy that shares the module's tensors, in which convolutions do the frozen batch norms' work.

    A norm is folded if it is Detectron2's ``norm`` of a convolution. It is also folded if it is registered
    right after a convolution and its input is that convolution's output. Folded weights are in channels-last
    memory on CPUs. There, PyTorch otherwise changes the order of every convolution's input and output.

    Args:
        module: a backbone in eval mode, or a frozen one.
        images: its input, the first of which shows which norm follows which convolution.

    Returns:
        the copy; the module itself if there is nothing to fold.
    """
    if not any(isinstance(child, FrozenBatchNorm2d) for child in module.modules()):
        return module
    followed = _followed(module, images[:1])
    shared = {id(t): t for t in (*module.parameters(), *module.buffers())}
    folded = copy.deepcopy(module, shared)
    for name, parent in list(folded.named_modules()):
        if isinstance(parent, Conv2d) and isinstance(parent.norm, FrozenBatchNorm2d):
            _fold(parent, parent.norm)
            parent.norm = None
        for (before, convolution), (after, norm) in pairwise(list(parent.named_children())):
            if (f"{name}.{before}", f"{name}.{after}") in followed:
                _fold(convolution, norm)
                rest = [getattr(norm, part) for part in ("drop", "act") if hasattr(norm, part)]
                setattr(parent, after, nn.Sequential(*rest))
                if type(convolution).__name__ == "Conv2dSame":
                    setattr(parent, before, SameConvolution(convolution))
    return folded


def _followed(module: nn.Module, images: Tensor) -> set[tuple[str, str]]:
    """Returns the names of convolutions and norms of which the second gets the output of the first."""
    pairs = {
        norm: (convolution, f"{name}.{before}", f"{name}.{after}")
        for name, parent in module.named_modules()
        for (before, convolution), (after, norm) in pairwise(list(parent.named_children()))
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, FrozenBatchNorm2d)
    }
    outputs: dict[nn.Module, Tensor] = {}
    found: set[tuple[str, str]] = set()

    def keep(convolution: nn.Module, _: Any, output: Tensor) -> None:
        outputs[convolution] = output

    def compare(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        convolution, before, after = pairs[norm]
        if outputs.get(convolution) is inputs[0]:
            found.add((before, after))

    hooks = []
    for norm, (convolution, *_) in pairs.items():
        hooks += [convolution.register_forward_hook(keep), norm.register_forward_pre_hook(compare)]
    try:
        if pairs:
            module(images)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _fold(convolution: nn.Conv2d, norm: FrozenBatchNorm2d) -> None:
    """Gives the convolution new parameters, so that it does the norm's work."""
    dtype = convolution.weight.dtype
    scale = norm.weight.float() * (norm.running_var.float() + norm.eps).rsqrt()
    weight = (convolution.weight * scale[:, None, None, None]).to(dtype)
    shift = norm.bias - norm.running_mean * scale
    bias = shift if convolution.bias is None else shift + convolution.bias * scale
    on_cpu = weight.device.type == "cpu"
    weight = weight.contiguous(memory_format=torch.channels_last if on_cpu else torch.preserve_format)
    convolution.weight = nn.Parameter(weight, requires_grad=False)
    convolution.bias = nn.Parameter(bias.to(dtype), requires_grad=False)


class SameConvolution(nn.Module):
    """timm's convolution with TensorFlow's padding, which pads one more cell on the right and bottom.

    If the stride divides the size of the input, zeros in the kernel take the place of that cell, and the
    input need not be copied.
    """

    def __init__(self, convolution: nn.Conv2d):
        super().__init__()
        self.convolution = convolution
        totals = [k - s for k, s in zip(convolution.kernel_size, convolution.stride, strict=True)]
        self._usable = min(totals) >= 0 and set(convolution.dilation) == {1}
        odd = [total % 2 for total in totals]
        self._padding = [total // 2 + o for total, o in zip(totals, odd, strict=True)]
        weight = F.pad(convolution.weight, (odd[1], 0, odd[0], 0))
        self.weight = weight.contiguous(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        convolution = self.convolution
        stride = convolution.stride
        if not self._usable or x.shape[-2] % stride[0] or x.shape[-1] % stride[1]:
            return convolution(x)
        return F.conv2d(x, self.weight, convolution.bias, stride, self._padding, 1, convolution.groups)
