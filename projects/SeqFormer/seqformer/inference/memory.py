"""What a frame of a clip takes of memory, from the shapes of its tensors."""

from __future__ import annotations

from seqformer.modeling.mask_head import DYNAMIC_CHANNELS
from seqformer.modeling.network import EncodedFrames, SeqFormerNetwork

__all__ = ["frame_bytes"]

_QUERY_TENSORS = 8  # as large as the box queries, in a decoder layer at a time
_HIDDEN_TENSORS = 3  # of the dynamic convolutions at a time


def frame_bytes(network: SeqFormerNetwork, frames: EncodedFrames, num_instances: int) -> int:
    """Bytes that decoding a clip takes for each of its frames, at the most.

    That is the encoded frame plus the larger of two steps. The decoder takes its values, which are as large
    as the encoder's output, and box queries of all layers. The mask head takes its hidden channels and the
    logits. The network is not counted, nor what does not depend on how a video is cut: frames and results.

    Args:
        network: whose decoder will decode them.
        frames: some frames of the video, encoded.
        num_instances: instances that are drawn.
    """
    memory, features = frames.memory[0].nbytes, frames.mask_features[0].nbytes
    cells = frames.mask_features.shape[-2:].numel()
    queries = network.detr.query_embed.num_embeddings * frames.memory.shape[-1]
    layers = len(network.detr.transformer.decoder.layers)
    decoding = memory + (layers + _QUERY_TENSORS) * queries * frames.memory.element_size()
    logits = 4 * 4 * cells * num_instances  # float32, four for every cell
    drawing = _HIDDEN_TENSORS * DYNAMIC_CHANNELS * 4 * cells * num_instances + logits
    return memory + features + max(decoding, drawing)
