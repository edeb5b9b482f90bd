"""Layers shared by encoder, decoder and heads."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from seqformer.modeling.dropout import Dropout, dropout
from seqformer.ops import ms_deform_attn_fused

__all__ = [
    "MLP",
    "Levels",
    "MSDeformAttn",
    "hidden_layer",
    "inverse_sigmoid",
    "linear",
    "on_plain_cpu",
    "reset_parameters",
    "run_layer",
]


def on_plain_cpu(x: Tensor) -> bool:
    """Whether ``x`` is float32 on a CPU, and operations on it are neither recorded, traced nor autocast.

    Only then are oneDNN's own operators usable.
    """
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and torch.backends.mkldnn.is_available()
    )


def linear(layer: nn.Module, x: Tensor, *, relu: bool = False) -> Tensor:
    """Applies a linear layer, (..., d) -> (..., e), and ReLU after it if asked.

    Without gradients on a CPU it is one call of oneDNN. PyTorch's own linear layer first copies the bias to
    every row, and its ReLU is another pass over the memory.
    """
    if type(layer) is nn.Linear and on_plain_cpu(x):
        activation = "relu" if relu else "none"
        return torch.ops.mkldnn._linear_pointwise(x, layer.weight, layer.bias, activation, [], "")
    x = layer(x)
    return F.relu(x) if relu else x


def hidden_layer(layer: nn.Linear, drop: Dropout, x: Tensor) -> Tensor:
    """Applies a linear layer, ReLU and dropout, (..., d) -> (..., e)."""
    if drop.training and drop.p:
        return dropout(layer(x), drop.p, relu=True)
    return linear(layer, x, relu=True)


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Returns the logit of ``x``, with ``x`` and ``1 - x`` raised to at least ``eps``."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


def run_layer(layer: nn.Module, *args: Any, recompute: bool) -> Any:
    """Runs ``layer(*args)``; with ``recompute``, the backward pass runs it again to save memory."""
    if recompute and torch.is_grad_enabled():
        return checkpoint(layer, *args, use_reentrant=False)
    return layer(*args)


def reset_parameters(module: nn.Module, reset_weight: Callable[[Tensor], Tensor]) -> None:
    """Initialises linear layers and convolutions in place. Biases become zero.

    Args:
        module: a layer, or a module made of such layers.
        reset_weight: initialises a weight in place, such as ``nn.init.xavier_uniform_``.
    """
    for parameter in module.parameters():
        if parameter.dim() > 1:
            reset_weight(parameter)
        else:
            nn.init.zeros_(parameter)


class MLP(nn.Module):
    """Linear layers with ReLU between them. Hidden layers have ``hidden_dim`` channels."""

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, num_layers: int):
        super().__init__()
        widths = [input_dim] + [hidden_dim] * (num_layers - 1) + [output_dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """(..., input_dim) -> (..., output_dim)."""
        for layer in self.layers[:-1]:
            x = linear(layer, x, relu=True)
        return linear(self.layers[-1], x)


class Levels:
    """Sizes of the feature levels, whose cells form one sequence of S cells.

    Attributes:
        shapes: height and width of each level in cells.
        spatial_shapes: the same as a tensor, (L, 2) int64.
        start_index: (L,) int64, the first cell of each level.
    """

    def __init__(self, shapes: list[tuple[int, int]], device: torch.device):
        self.shapes = shapes
        self.spatial_shapes = torch.tensor(shapes, dtype=torch.int64, device=device)
        cells = [height * width for height, width in shapes]
        starts = [sum(cells[:level]) for level in range(len(cells))]
        self.start_index = torch.tensor(starts, dtype=torch.int64, device=device)

    def split(self, x: Tensor) -> list[Tensor]:
        """(N, S, d) -> (N, d, h, w) for each level."""
        parts = x.split([height * width for height, width in self.shapes], dim=1)
        return [
            part.transpose(1, 2).unflatten(2, shape) for part, shape in zip(parts, self.shapes, strict=True)
        ]


class MSDeformAttn(nn.Module):
    """Multi-scale deformable attention with SeqFormer's two output projections.

    ``forward`` returns the sampled features without a projection. ``output_proj`` projects them for the
    instance branch and the encoder, ``output_proj_box`` for the box branch. The encoder does not use the
    latter, but released checkpoints contain it.

    Source: Deformable DETR, section 4.1; SeqFormer, section 3.2.
    """

    def __init__(self, dim: int, num_levels: int, num_heads: int, num_points: int):
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"width {dim} is not divisible by {num_heads} heads")
        self.num_levels = num_levels
        self.num_heads = num_heads
        self.num_points = num_points
        self.sampling_offsets = nn.Linear(dim, num_heads * num_levels * num_points * 2)
        self.attention_weights = nn.Linear(dim, num_heads * num_levels * num_points)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)
        self.output_proj_box = nn.Linear(dim, dim)

    def reset_parameters(self) -> None:
        """Points each head in another direction, with the p-th point p cells away and equal weights."""
        nn.init.zeros_(self.sampling_offsets.weight)
        angles = torch.arange(self.num_heads, dtype=torch.float32) * (2 * math.pi / self.num_heads)
        directions = torch.stack((angles.cos(), angles.sin()), dim=-1)
        directions = directions / directions.abs().amax(-1, keepdim=True)  # project onto the unit square
        distances = torch.arange(1, self.num_points + 1, dtype=torch.float32)
        offsets = directions[:, None, None, :] * distances[None, None, :, None]
        offsets = offsets.expand(-1, self.num_levels, -1, -1)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.reshape(-1))
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj, self.output_proj_box):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def project(self, value: Tensor, padding_mask: Tensor) -> Tensor:
        """Projects cells (N, S, d) for sampling; padded ones, of ``padding_mask`` (N, S), become zero."""
        return linear(self.value_proj, value).masked_fill_(padding_mask.unsqueeze(-1), 0.0)

    def forward(
        self,
        query: Tensor,
        reference: Tensor,
        value: Tensor,
        padding_mask: Tensor,
        levels: Levels,
        projected: Tensor | None = None,
    ) -> Tensor:
        """Samples each image at the points of its queries.

        Args:
            query: (N, Q, d), including position; offsets and weights are computed from it.
            reference: (N, Q, L, 2) points xy, or (N, Q, L, 4) boxes cxcywh, normalised to each padded level.
            value: (N, S, d).
            padding_mask: (N, S) bool, true where padded; the value is set to zero there.
            levels: sizes of the levels.
            projected: (N, S, d), ``project(value, padding_mask)`` if it is known.

        Returns:
            (N, Q, d).
        """
        n, q, d = query.shape
        heads, num_levels, points = self.num_heads, self.num_levels, self.num_points
        # Under autocast the projections return half precision, which is too coarse for locations.
        dtype = reference.dtype
        value = self.project(value, padding_mask) if projected is None else projected
        value = value.view(n, -1, heads, d // heads)
        offsets = linear(self.sampling_offsets, query).to(dtype).view(n, q, heads, num_levels, points, 2)
        logits = linear(self.attention_weights, query).to(dtype).view(n, q, heads, num_levels, points)
        return self.sample(value, reference, offsets, logits, levels)

    def sample(
        self, value: Tensor, reference: Tensor, offsets: Tensor, logits: Tensor, levels: Levels
    ) -> Tensor:
        """Samples projected values (N, S, M, D); see :func:`seqformer.ops.ms_deform_attn_fused`."""
        return ms_deform_attn_fused(
            value, levels.spatial_shapes, levels.start_index, reference, offsets, logits
        )
