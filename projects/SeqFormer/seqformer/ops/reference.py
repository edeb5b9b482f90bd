"""Multi-scale deformable attention in plain PyTorch: the reference for all other implementations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "attention_weights",
    "box_extent",
    "level_sizes",
    "ms_deform_attn_fused_reference",
    "ms_deform_attn_reference",
    "sampling_locations",
]


def ms_deform_attn_reference(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """See :func:`seqformer.ops.ms_deform_attn`. Keeps the samples of only one level in memory."""
    num_images, _, num_heads, head_dim = value.shape
    num_queries = sampling_locations.shape[1]
    dtype = value.dtype
    sampling_locations, attention_weights = map(_at_least_float32, (sampling_locations, attention_weights))
    value = value.to(sampling_locations.dtype)
    grids = 2 * sampling_locations - 1
    output = value.new_zeros(num_images * num_heads, head_dim, num_queries)
    starts = level_start_index.tolist()
    for level, (height, width) in enumerate(spatial_shapes.tolist()):
        cells = value[:, starts[level] : starts[level] + height * width]
        # N, h*w, M, D -> N*M, D, h, w
        cells = cells.permute(0, 2, 3, 1).reshape(num_images * num_heads, head_dim, height, width)
        grid = grids[:, :, :, level].transpose(1, 2).flatten(0, 1)  # N*M, Q, P, 2
        weights = attention_weights[:, :, :, level].transpose(1, 2).flatten(0, 1)  # N*M, Q, P
        samples = F.grid_sample(cells, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        output = output + (samples * weights.unsqueeze(1)).sum(-1)
    return output.view(num_images, num_heads * head_dim, num_queries).transpose(1, 2).to(dtype)


def ms_deform_attn_fused_reference(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    reference: Tensor,
    offsets: Tensor,
    logits: Tensor,
) -> Tensor:
    """See :func:`seqformer.ops.ms_deform_attn_fused`."""
    locations = sampling_locations(reference, offsets, spatial_shapes)
    weights = attention_weights(logits)
    return ms_deform_attn_reference(value, spatial_shapes, level_start_index, locations, weights)


def sampling_locations(reference: Tensor, offsets: Tensor, spatial_shapes: Tensor) -> Tensor:
    """Returns the sampling locations (N, Q, M, L, P, 2), xy, normalised to each padded level.

    Args:
        reference: (N, Q, L, 2) points xy, or (N, Q, L, 4) boxes cxcywh.
        offsets: (N, Q, M, L, P, 2), in cells relative to a point; in units of half the box size divided by P
            relative to the centre of a box.
        spatial_shapes: (L, 2) int64, height and width of each level in cells.

    The result is float32 or float64, since half precision would shift a location by a good part of a cell.
    """
    reference, offsets = _at_least_float32(reference), _at_least_float32(offsets)
    points = offsets.shape[4]
    centre = _for_every_point(reference[:, :, None, :, :2], points)
    if reference.shape[-1] == 2:
        return centre + offsets / level_sizes(spatial_shapes, points, offsets.dtype)
    return centre + offsets / points * box_extent(reference, points) * 0.5


def level_sizes(spatial_shapes: Tensor, points: int, dtype: torch.dtype) -> Tensor:
    """Returns width and height of each level, (L, P, 2), which broadcasts with offsets."""
    return _for_every_point(spatial_shapes.flip(1).to(dtype), points)


def box_extent(reference: Tensor, points: int) -> Tensor:
    """Returns width and height of boxes (N, Q, L, 4) as (N, Q, 1, L, P, 2), which broadcasts with offsets."""
    return _for_every_point(reference[:, :, None, :, 2:], points)


def _for_every_point(x: Tensor, points: int) -> Tensor:
    """(..., L, 2) -> (..., L, P, 2), in memory: broadcasting rows of two numbers is slow on CPUs."""
    return x.unsqueeze(-2).expand(*x.shape[:-1], points, 2).contiguous()


def attention_weights(logits: Tensor) -> Tensor:
    """Returns the softmax of (N, Q, M, L, P) over L and P together, in float32 or float64."""
    return _at_least_float32(logits).flatten(3).softmax(-1).view_as(logits)


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
