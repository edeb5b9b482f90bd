"""Estimates the memory that decoding needs per frame, from the shapes of tensors."""

from __future__ import annotations

from seqformer.modeling.mask_head import DYNAMIC_CHANNELS
from seqformer.modeling.network import EncodedFrames, SeqFormerNetwork

__all__ = ["frame_bytes"]

_QUERY_TENSORS = 8  # tensors of the box queries' size that a decoder layer needs at once
_HIDDEN_TENSORS = 3  # hidden tensors that the dynamic convolutions need at once


def frame_bytes(network: SeqFormerNetwork, frames: EncodedFrames, num_instances: int) -> int:
    """Returns an upper bound on the memory, in bytes, that decoding a clip needs per frame.

    It is the encoded frame plus the larger of two steps. The decoder needs its values, which are as large as
    the encoder's output, and the box queries of all layers. The mask head needs its hidden channels and the
    logits. Weights are not included, and neither are frames and results, which do not depend on clips.

    Args:
        network: the network that decodes the frames.
        frames: some encoded frames of the video.
        num_instances: number of candidates whose masks are computed.
    """
    memory, features = frames.memory[0].nbytes, frames.mask_features[0].nbytes
    cells = frames.mask_features.shape[-2:].numel()
    queries = network.detr.query_embed.num_embeddings * frames.memory.shape[-1]
    layers = len(network.detr.transformer.decoder.layers)
    decoding = memory + (layers + _QUERY_TENSORS) * queries * frames.memory.element_size()
    logits = 4 * 4 * cells * num_instances  # float32, four per cell
    drawing = _HIDDEN_TENSORS * DYNAMIC_CHANNELS * 4 * cells * num_instances + logits
    return memory + features + max(decoding, drawing)
