"""Operators: multi-scale deformable attention."""

from seqformer.ops.ms_deform_attn import implementation, is_compiled, ms_deform_attn, ms_deform_attn_fused

__all__ = ["implementation", "is_compiled", "ms_deform_attn", "ms_deform_attn_fused"]
