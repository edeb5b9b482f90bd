"""Multi-scale deformable attention: the operators, their output shapes and their gradients.

``torch.ops.seqformer.ms_deform_attn``, ``ms_deform_attn_backward`` and ``ms_deform_attn_fused`` are compiled
from ``csrc/``. If they are not, ``reference.py`` provides the first and the last in plain PyTorch.
"""

from __future__ import annotations

import importlib.util
import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor

from seqformer.ops import reference as plain

__all__ = ["implementation", "is_compiled", "ms_deform_attn", "ms_deform_attn_fused"]

_ARGUMENTS = "Tensor value, Tensor spatial_shapes, Tensor level_start_index, "


def _load() -> bool:
    """Registers the compiled operators, or plain ones without them; returns whether they are compiled."""
    if importlib.util.find_spec("seqformer._C") is not None:
        try:
            importlib.import_module("seqformer._C")
            return True
        except ImportError as error:  # compiled for another PyTorch
            global _load_error
            _load_error = str(error).split("\n")[0]
    _library.define(
        f"ms_deform_attn({_ARGUMENTS}Tensor sampling_locations, Tensor attention_weights) -> Tensor"
    )
    _library.define(
        f"ms_deform_attn_fused({_ARGUMENTS}Tensor reference, Tensor offsets, Tensor logits) -> Tensor"
    )
    _library.impl("ms_deform_attn", plain.ms_deform_attn_reference, "CompositeImplicitAutograd")
    _library.impl("ms_deform_attn_fused", plain.ms_deform_attn_fused_reference, "CompositeImplicitAutograd")
    return False


def _register() -> None:
    """Registers the compiled operators' output shapes (for torch.compile and export) and gradients."""
    register_fake, register_autograd = torch.library.register_fake, torch.library.register_autograd

    @register_fake("seqformer::ms_deform_attn", lib=_library)
    def _(
        value: Tensor,
        spatial_shapes: Tensor,
        level_start_index: Tensor,
        sampling_locations: Tensor,
        attention_weights: Tensor,
    ) -> Tensor:
        return value.new_empty(value.shape[0], sampling_locations.shape[1], value.shape[2] * value.shape[3])

    @register_fake("seqformer::ms_deform_attn_fused", lib=_library)
    def _(
        value: Tensor,
        spatial_shapes: Tensor,
        level_start_index: Tensor,
        reference: Tensor,
        offsets: Tensor,
        logits: Tensor,
    ) -> Tensor:
        return value.new_empty(value.shape[0], offsets.shape[1], value.shape[2] * value.shape[3])

    @register_fake("seqformer::ms_deform_attn_backward", lib=_library)
    def _(
        grad_output: Tensor,
        value: Tensor,
        spatial_shapes: Tensor,
        level_start_index: Tensor,
        sampling_locations: Tensor,
        attention_weights: Tensor,
    ) -> tuple[Tensor, ...]:
        return tuple(
            torch.empty_like(t, memory_format=torch.contiguous_format)
            for t in (value, sampling_locations, attention_weights)
        )

    def save_inputs(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        value, shapes, starts, locations, weights = ctx.saved_tensors
        grads = torch.ops.seqformer.ms_deform_attn_backward(
            grad_output, value, shapes, starts, locations, weights
        )
        return grads[0], None, None, grads[1], grads[2]

    def backward_fused(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        value, shapes, starts, reference, offsets, logits = ctx.saved_tensors
        locations = plain.sampling_locations(reference, offsets, shapes)
        weights = plain.attention_weights(logits)
        grad_value, grad_locations, grad_weights = torch.ops.seqformer.ms_deform_attn_backward(
            grad_output, value, shapes, starts, locations, weights
        )
        weighted = weights * grad_weights
        grad_logits = weighted - weights * weighted.sum((3, 4), keepdim=True)
        points = offsets.shape[4]
        if reference.shape[-1] == 2:
            grad_offsets = grad_locations / plain.level_sizes(shapes, points, grad_locations.dtype)
        else:
            half = 0.5 / points
            grad_offsets = grad_locations * plain.box_extent(reference, points) * half
        dtype = offsets.dtype  # round to half precision only once, here
        grad_reference = None
        if ctx.needs_input_grad[3]:  # not for the encoder's grid
            grad_reference = grad_locations.sum((2, 4))  # N, Q, L, 2
            if reference.shape[-1] == 4:
                grad_extent = (grad_locations * offsets).sum((2, 4)) * half
                grad_reference = torch.cat((grad_reference, grad_extent), dim=-1)
            grad_reference = grad_reference.to(dtype)
        return grad_value, None, None, grad_reference, grad_offsets.to(dtype), grad_logits.to(dtype)

    register_autograd("seqformer::ms_deform_attn", backward, setup_context=save_inputs, lib=_library)
    register_autograd(
        "seqformer::ms_deform_attn_fused", backward_fused, setup_context=save_inputs, lib=_library
    )


_library = torch.library.Library("seqformer", "FRAGMENT")
_load_error = ""
is_compiled = _load()
"""Whether the compiled operators are in use."""
if is_compiled:
    _register()


@cache
def _warn_that_plain() -> None:
    warnings.warn(
        f"deformable attention runs in {implementation()}, which is many times slower; "
        "run `python -m seqformer.env` to see how to fix it",
        stacklevel=3,
    )


def ms_deform_attn(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Samples ``value`` bilinearly at every query's points and returns the weighted sums of the samples.

    Shapes: N images, S cells of all levels, M heads, D channels per head, Q queries, L levels, P points.

    Args:
        value: (N, S, M, D), the cells of the levels in sequence, each level row by row; float32, float64,
            float16 or bfloat16.
        spatial_shapes: (L, 2) int64, height and width of each level in cells.
        level_start_index: (L,) int64, the first cell of each level.
        sampling_locations: (N, Q, M, L, P, 2), xy, normalised to each (padded) level. Cell centres are at
            half-integer positions. Locations outside a level, or NaN, sample zero.
        attention_weights: (N, Q, M, L, P).

    ``sampling_locations`` and ``attention_weights`` have the dtype of ``value``; if that is half precision
    they may be float32. Sums are computed in float32 or float64.

    Returns:
        (N, Q, M * D), with the dtype of ``value``.

    Raises:
        RuntimeError: if shapes, dtypes, devices or level sizes do not match; the message names the argument.

    Source: Deformable DETR, equation 3; SeqFormer, section 3.2.
    """
    if not is_compiled and not torch.compiler.is_compiling():
        _warn_that_plain()
    return torch.ops.seqformer.ms_deform_attn(
        value, spatial_shapes, level_start_index, sampling_locations, attention_weights
    )


def ms_deform_attn_fused(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    reference: Tensor,
    offsets: Tensor,
    logits: Tensor,
) -> Tensor:
    """:func:`ms_deform_attn` computed directly from references, offsets and logits.

    On CPUs the locations and weights are never written to memory. The backward pass recomputes them.

    Args:
        value, spatial_shapes, level_start_index: as in :func:`ms_deform_attn`.
        reference: (N, Q, L, 2) points xy, or (N, Q, L, 4) boxes cxcywh, normalised to each padded level.
        offsets: (N, Q, M, L, P, 2), xy. Relative to a point they are in cells; relative to the centre of a
            box, in units of half the box size divided by P.
        logits: (N, Q, M, L, P). Their softmax over L and P together gives the attention weights.

    Returns:
        (N, Q, M * D), with the dtype of ``value``.

    Raises:
        RuntimeError: as in :func:`ms_deform_attn`.

    Source: Deformable DETR, equation 3 and appendix A.4; SeqFormer, section 3.2.
    """
    if not is_compiled and not torch.compiler.is_compiling():
        _warn_that_plain()
    return torch.ops.seqformer.ms_deform_attn_fused(
        value, spatial_shapes, level_start_index, reference, offsets, logits
    )


def implementation() -> str:
    """Returns a description of the implementation in use."""
    if not is_compiled:
        return f"plain PyTorch ({_load_error or 'the compiled operator was not built'})"
    has_cuda = torch._C._dispatch_has_kernel_for_dispatch_key("seqformer::ms_deform_attn", "CUDA")
    return f"compiled, {torch.ops.seqformer.cpu_capability()} on CPUs" + ", and for CUDA" * has_cuda
