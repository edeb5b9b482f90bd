"""Multi-scale deformable attention in plain PyTorch: the version that all others must agree with."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["ms_deform_attn_reference"]


def ms_deform_attn_reference(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """See :func:`seqformer.ops.ms_deform_attn`. One level's samples are held at a time."""
    num_images, _, num_heads, head_dim = value.shape
    num_queries = sampling_locations.shape[1]
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
    return output.view(num_images, num_heads * head_dim, num_queries).transpose(1, 2)
