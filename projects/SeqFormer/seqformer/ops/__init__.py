"""Operators: multi-scale deformable attention."""

from seqformer.ops.ms_deform_attn import implementation, ms_deform_attn

__all__ = ["implementation", "ms_deform_attn"]
