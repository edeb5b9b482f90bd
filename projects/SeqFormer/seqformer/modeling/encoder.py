"""Deformable encoder, which encodes every frame independently."""

from __future__ import annotations

from torch import Tensor, nn

from seqformer.modeling.dropout import Dropout
from seqformer.modeling.geometry import FrameGeometry
from seqformer.modeling.layers import Levels, MSDeformAttn, hidden_layer, linear, run_layer

__all__ = ["Encoder", "EncoderLayer"]


class EncoderLayer(nn.Module):
    """Deformable self-attention and a feed-forward network, each followed by residual and norm."""

    def __init__(
        self, dim: int, feedforward_dim: int, dropout: float, num_levels: int, num_heads: int, num_points: int
    ):
        super().__init__()
        self.self_attn = MSDeformAttn(dim, num_levels, num_heads, num_points)
        self.dropout1 = Dropout(dropout)
        self.norm1 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, feedforward_dim)
        self.dropout2 = Dropout(dropout)
        self.linear2 = nn.Linear(feedforward_dim, dim)
        self.dropout3 = Dropout(dropout)
        self.norm2 = nn.LayerNorm(dim)

    def forward(
        self, x: Tensor, position: Tensor, reference: Tensor, padding_mask: Tensor, levels: Levels
    ) -> Tensor:
        """(N, S, d) -> (N, S, d)."""
        sampled = self.self_attn(x + position, reference, x, padding_mask, levels)
        x = self.norm1(x + self.dropout1(linear(self.self_attn.output_proj, sampled)))
        hidden = hidden_layer(self.linear1, self.dropout2, x)
        return self.norm2(x + self.dropout3(linear(self.linear2, hidden)))


class Encoder(nn.Module):
    """A stack of encoder layers. Source: SeqFormer, section 3.2, "Transformer encoder".

    Args:
        layers: applied in sequence.
        recompute: recompute layers in the backward pass instead of keeping their activations.
    """

    def __init__(self, layers: list[EncoderLayer], recompute: bool = False):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.recompute = recompute

    def forward(self, x: Tensor, position: Tensor, geometry: FrameGeometry) -> Tensor:
        """Encodes N frames independently.

        Args:
            x: (N, S, d) projected backbone features of all levels.
            position: (N, S, d), or (1, S, d) if it is the same in all frames.
            geometry: that of the frames.

        Returns:
            (N, S, d).
        """
        arguments = position, geometry.reference, geometry.padding_mask, geometry.levels
        for layer in self.layers:
            x = run_layer(layer, x, *arguments, recompute=self.recompute)
        return x
