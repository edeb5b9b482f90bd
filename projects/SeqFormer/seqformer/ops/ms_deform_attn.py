"""Multi-scale deformable attention: the interface that the network calls."""

from __future__ import annotations

from torch import Tensor

from seqformer.ops.reference import ms_deform_attn_reference

__all__ = ["implementation", "ms_deform_attn"]


def ms_deform_attn(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Samples ``value`` bilinearly at every query's points and sums the samples by their weights.

    Shapes: N images, S cells of all levels, M heads, D channels a head, Q queries, L levels, P points.

    Args:
        value: (N, S, M, D), the levels' cells one after another, each level row by row.
        spatial_shapes: (L, 2) int64, height and width of each level in cells.
        level_start_index: (L,) int64, the first cell of each level.
        sampling_locations: (N, Q, M, L, P, 2), xy, normalised to each (padded) level; cells' centres
            lie at half cells, and outside of a level the value is zero.
        attention_weights: (N, Q, M, L, P).

    Returns:
        (N, Q, M * D).

    Source: Deformable DETR, equation 3; SeqFormer, section 3.2.
    """
    return ms_deform_attn_reference(
        value, spatial_shapes, level_start_index, sampling_locations, attention_weights
    )


def implementation() -> str:
    """The implementation that :func:`ms_deform_attn` uses, in words."""
    return "pure PyTorch"
