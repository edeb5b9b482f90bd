"""Decoder: each query has one instance query for the video and one box query per frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqformer.modeling.dropout import Dropout, dropout
from seqformer.modeling.layers import Levels, MSDeformAttn, hidden_layer, inverse_sigmoid, linear, run_layer

__all__ = ["Decoder", "DecoderLayer", "DecoderOutput"]


@dataclass
class DecoderOutput:
    """Output of one decoder layer. References are normalised to the unpadded frame.

    Attributes:
        instance_queries: (B, Q, d).
        box_queries: (B, T, Q, d).
        reference: (B, T, Q, 2 or 4), references of the layer: points xy (first layer) or boxes cxcywh.
        boxes: (B, T, Q, 4), cxcywh, refined by the layer.
        temporal_weights: (B, T, Q), sum to 1 over T.
    """

    instance_queries: Tensor
    box_queries: Tensor
    reference: Tensor
    boxes: Tensor
    temporal_weights: Tensor


class DecoderLayer(nn.Module):
    """One decoder layer (SeqFormer, section 3.2, "Query decompose transformer decoder", figure 2)."""

    def __init__(
        self, dim: int, feedforward_dim: int, dropout: float, num_levels: int, num_heads: int, num_points: int
    ):
        super().__init__()
        self.cross_attn = MSDeformAttn(dim, num_levels, num_heads, num_points)
        self.dropout1 = Dropout(dropout)
        self.norm1 = nn.LayerNorm(dim)
        self.dropout1_box = Dropout(dropout)
        self.norm1_box = nn.LayerNorm(dim)

        self.self_attn = nn.MultiheadAttention(dim, num_heads, dropout=dropout, batch_first=True)
        self.dropout2 = Dropout(dropout)
        self.norm2 = nn.LayerNorm(dim)
        self.self_attn_box = nn.MultiheadAttention(dim, num_heads, dropout=dropout, batch_first=True)
        self.dropout2_box = Dropout(dropout)
        self.norm2_box = nn.LayerNorm(dim)

        self.linear1 = nn.Linear(dim, feedforward_dim)
        self.dropout3 = Dropout(dropout)
        self.linear2 = nn.Linear(feedforward_dim, dim)
        self.dropout4 = Dropout(dropout)
        self.norm3 = nn.LayerNorm(dim)
        self.linear1_box = nn.Linear(dim, feedforward_dim)
        self.dropout3_box = Dropout(dropout)
        self.linear2_box = nn.Linear(feedforward_dim, dim)
        self.dropout4_box = Dropout(dropout)
        self.norm3_box = nn.LayerNorm(dim)

        self.time_attention_weights = nn.Linear(dim, 1)

    def forward(
        self,
        instance: Tensor,
        box: Tensor,
        position: Tensor,
        reference: Tensor,
        memory: Tensor,
        padding_mask: Tensor,
        levels: Levels,
        groups: int = 1,
        values: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Refines instance queries and box queries.

        Args:
            instance: (B, Q, d).
            box: (B, T, Q, d), or (B, 1, Q, d) if all frames share one box query, as in the first layer.
            position: (B, Q, d).
            reference: (B, T, Q, L, 2 or 4), normalised to the padded levels.
            memory: (B*T, S, d).
            padding_mask: (B*T, S) bool.
            groups: number of equal groups of the Q queries; groups do not attend to each other.
            values: (B*T, S, d), ``memory`` projected by ``cross_attn``, if it is known.

        Returns:
            instance queries (B, Q, d), box queries (B, T, Q, d) and temporal weights (B, T, Q).
        """
        b, t, q = reference.shape[:3]
        query = instance + position
        attended = _attend(self.self_attn, query, instance, groups)
        instance = self.norm2(instance + self.dropout2(attended))

        position = position.unsqueeze(1)
        query = (box + position).flatten(0, 1)
        attended = _attend(self.self_attn_box, query, box.flatten(0, 1), groups)
        box = self.norm2_box(box + self.dropout2_box(attended.view_as(box)))

        query = (box + position).expand(b, t, q, -1).flatten(0, 1)
        sampled = self.cross_attn(
            query, reference.flatten(0, 1), memory, padding_mask, levels, projected=values
        )
        sampled = sampled.view(b, t, q, -1)

        box = self.norm1_box(box + self.dropout1_box(linear(self.cross_attn.output_proj_box, sampled)))
        hidden = hidden_layer(self.linear1_box, self.dropout3_box, box)
        box = self.norm3_box(box + self.dropout4_box(linear(self.linear2_box, hidden)))

        weights = self.time_attention_weights(box).softmax(1)  # B, T, Q, 1
        joined = (weights * linear(self.cross_attn.output_proj, sampled)).sum(1)
        instance = self.norm1(instance + self.dropout1(joined))
        hidden = hidden_layer(self.linear1, self.dropout3, instance)
        instance = self.norm3(instance + self.dropout4(linear(self.linear2, hidden)))
        return instance, box, weights.squeeze(-1)


def _attend(attention: nn.MultiheadAttention, query: Tensor, value: Tensor, groups: int) -> Tensor:
    """Self-attention of queries (N, Q, d) within each of ``groups`` equal groups.

    PyTorch's module computes the same, but from copies with another order of dimensions.
    """
    n, q, d = query.shape
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    query, key = F.linear(query, weight[: 2 * d], bias[: 2 * d]).chunk(2, dim=-1)
    value = F.linear(value, weight[2 * d :], bias[2 * d :])
    query, key, value = (
        x.reshape(n * groups, q // groups, attention.num_heads, -1).transpose(1, 2)
        for x in (query, key, value)
    )
    p = attention.dropout if attention.training else 0.0
    if p and query.device.type == "cpu":  # PyTorch does the same there, with its own dropout
        weights = (query * query.shape[-1] ** -0.5 @ key.transpose(2, 3)).softmax(-1)
        attended = dropout(weights, p) @ value
    else:
        if query.device.type == "cpu" and query.dtype == torch.bfloat16 and torch.is_grad_enabled():
            # The backward pass of PyTorch's kernel for bfloat16 takes several times longer.
            query, key, value = query.float(), key.float(), value.float()
        with torch.autocast(query.device.type, enabled=False):
            attended = F.scaled_dot_product_attention(query, key, value, dropout_p=p)
    return linear(attention.out_proj, attended.transpose(1, 2).reshape(n, q, d))


class Decoder(nn.Module):
    """A stack of decoder layers. The boxes of each layer are the references of the next.

    ``bbox_embed``, one box head per layer, is set by the network, which shares it.

    Args:
        layers: applied in sequence.
        recompute: recompute layers in the backward pass instead of keeping their activations.
    """

    def __init__(self, layers: list[DecoderLayer], recompute: bool = False):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.recompute = recompute
        self.bbox_embed: nn.ModuleList

    def values(self, memory: Tensor, padding_mask: Tensor) -> tuple[Tensor, ...]:
        """Returns what each layer samples from, (N, S, d), from memory (N, S, d) and its padding (N, S)."""
        attentions = [module for module in self.layers.modules() if isinstance(module, MSDeformAttn)]
        return tuple(attention.project(memory, padding_mask) for attention in attentions)

    @staticmethod
    def refine(delta: Tensor, reference: Tensor) -> Tensor:
        """Returns boxes (..., 4) cxcywh from a box head's output and references (..., 2 or 4), normalised."""
        shift = inverse_sigmoid(reference)
        if reference.shape[-1] == 2:
            shift = F.pad(shift, (0, 2))
        return (delta + shift).sigmoid()

    def forward(
        self,
        content: Tensor,
        position: Tensor,
        reference: Tensor,
        memory: Tensor,
        padding_mask: Tensor,
        valid_ratios: Tensor,
        levels: Levels,
        num_frames: int,
        groups: int = 1,
        values: Sequence[Tensor] = (),
    ) -> list[DecoderOutput]:
        """Decodes B videos of T frames.

        Args:
            content: (B, Q, d), the initial instance queries.
            position: (B, Q, d).
            reference: (B, Q, 2), points xy, normalised to the unpadded frame, shared by all frames.
            memory: (B*T, S, d).
            padding_mask: (B*T, S) bool.
            valid_ratios: (B*T, L, 2), xy.
            num_frames: T.
            groups: number of equal groups of the Q queries; groups do not attend to each other.
            values: ``self.values(memory, padding_mask)`` if they are known.

        Returns:
            one output per layer.
        """
        instance, box = content, content.unsqueeze(1)
        reference = reference.unsqueeze(1).expand(-1, num_frames, -1, -1)
        ratios = valid_ratios.unflatten(0, (-1, num_frames)).unsqueeze(2)
        outputs = []
        projected: Sequence[Tensor | None] = values or [None] * len(self.layers)
        for layer, box_head, value in zip(self.layers, self.bbox_embed, projected, strict=True):
            scale = ratios if reference.shape[-1] == 2 else torch.cat((ratios, ratios), dim=-1)
            instance, box, weights = run_layer(
                layer,
                instance,
                box,
                position,
                reference.unsqueeze(3) * scale,
                memory,
                padding_mask,
                levels,
                groups,
                value,
                recompute=self.recompute,
            )
            boxes = self.refine(box_head(box), reference)
            outputs.append(DecoderOutput(instance, box, reference, boxes, weights))
            reference = boxes.detach()
        return outputs
