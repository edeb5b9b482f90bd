"""Layers that encoder, decoder and heads share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from seqformer.ops import ms_deform_attn_fused

__all__ = ["MLP", "Levels", "MSDeformAttn", "inverse_sigmoid", "reset_parameters", "run_layer"]


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """The logit of ``x``; values and their complements below ``eps`` are raised to it."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


def run_layer(layer: nn.Module, *args: Any, recompute: bool) -> Any:
    """``layer(*args)``, which the backward pass computes again if ``recompute``: less memory, more time."""
    if recompute and torch.is_grad_enabled():
        return checkpoint(layer, *args, use_reentrant=False)
    return layer(*args)


def reset_parameters(module: nn.Module, reset_weight: Callable[[Tensor], Tensor]) -> None:
    """Initialises linear layers and convolutions, in place; their biases become zero.

    Args:
        module: a layer, or a module that consists of such layers.
        reset_weight: fills a weight in place, such as ``nn.init.xavier_uniform_``.
    """
    for parameter in module.parameters():
        if parameter.dim() > 1:
            reset_weight(parameter)
        else:
            nn.init.zeros_(parameter)


class MLP(nn.Module):
    """Linear layers with ReLU between; the hidden ones are ``hidden_dim`` wide."""

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, num_layers: int):
        super().__init__()
        widths = [input_dim] + [hidden_dim] * (num_layers - 1) + [output_dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """(..., input_dim) -> (..., output_dim)."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class Levels:
    """Sizes of the feature levels, whose cells follow one another in one sequence of S cells.

    Attributes:
        shapes: heights and widths, in cells.
        spatial_shapes: the same as an (L, 2) int64 tensor.
        start_index: (L,) int64, the first cell of each level.
    """

    def __init__(self, shapes: list[tuple[int, int]], device: torch.device):
        self.shapes = shapes
        self.spatial_shapes = torch.tensor(shapes, dtype=torch.int64, device=device)
        cells = [height * width for height, width in shapes]
        starts = [sum(cells[:level]) for level in range(len(cells))]
        self.start_index = torch.tensor(starts, dtype=torch.int64, device=device)

    def split(self, x: Tensor) -> list[Tensor]:
        """(N, S, d) -> one (N, d, h, w) a level."""
        parts = x.split([height * width for height, width in self.shapes], dim=1)
        return [
            part.transpose(1, 2).unflatten(2, shape) for part, shape in zip(parts, self.shapes, strict=True)
        ]


class MSDeformAttn(nn.Module):
    """Multi-scale deformable attention with the two output projections of SeqFormer.

    ``forward`` gives the sampled features, before any output projection: ``output_proj`` makes the
    instance branch's features of them (and the encoder's), ``output_proj_box`` the box branch's. The
    encoder has no box branch; released checkpoints hold that parameter all the same.

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
        """Heads look in different directions, the p-th point p cells away; all weights equal."""
        nn.init.zeros_(self.sampling_offsets.weight)
        angles = torch.arange(self.num_heads, dtype=torch.float32) * (2 * math.pi / self.num_heads)
        directions = torch.stack((angles.cos(), angles.sin()), dim=-1)
        directions = directions / directions.abs().amax(-1, keepdim=True)  # onto the unit square
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

    def forward(
        self, query: Tensor, reference: Tensor, value: Tensor, padding_mask: Tensor, levels: Levels
    ) -> Tensor:
        """Samples each image at its queries' points.

        Args:
            query: (N, Q, d), position added; offsets and weights are computed from it.
            reference: (N, Q, L, 2) points xy, or (N, Q, L, 4) boxes cxcywh, normalised to each padded level.
            value: (N, S, d).
            padding_mask: (N, S) bool, true where padded: there the value is zero.
            levels: the levels' sizes.

        Returns:
            (N, Q, d).
        """
        n, q, d = query.shape
        heads, num_levels, points = self.num_heads, self.num_levels, self.num_points
        # Under autocast the projections give half precision, too coarse for locations.
        dtype = reference.dtype
        value = self.value_proj(value).masked_fill_(padding_mask.unsqueeze(-1), 0.0)
        value = value.view(n, -1, heads, d // heads)
        offsets = self.sampling_offsets(query).to(dtype).view(n, q, heads, num_levels, points, 2)
        logits = self.attention_weights(query).to(dtype).view(n, q, heads, num_levels, points)
        return ms_deform_attn_fused(
            value, levels.spatial_shapes, levels.start_index, reference, offsets, logits
        )
