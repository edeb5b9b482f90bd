"""Records what the decoder attends to: sampling locations, attention and temporal weights of a clip."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from seqformer.errors import InputError
from seqformer.inference.options import InferenceOptions
from seqformer.inference.postprocess import encode_outputs
from seqformer.inference.video import frames_together, select_candidates
from seqformer.modeling.layers import Levels, MSDeformAttn
from seqformer.modeling.network import EncodedFrames, SeqFormerNetwork
from seqformer.ops.reference import attention_weights, sampling_locations
from seqformer.structures import RLE, Trace

__all__ = ["SampledPoints", "Trace", "record_sampling", "trace"]

_RESIZED_TOGETHER = 8  # frames whose masks are resized to the output's size together


@dataclass
class SampledPoints:
    """Samples of one call of deformable attention: N images, Q queries, M heads, L levels, P points.

    Attributes:
        locations: (N, Q, M, L, P, 2), xy, normalised to each padded level.
        weights: (N, Q, M, L, P), sum to 1 over L and P together.
    """

    locations: Tensor
    weights: Tensor


@contextmanager
def record_sampling(layers: Iterable[nn.Module]) -> Iterator[list[SampledPoints]]:
    """Records where decoder layers sample while the ``with`` block runs.

    Uses forward hooks on the layers' ``cross_attn``, which are removed at the end, even after an error.

    Args:
        layers: decoder layers, or other modules with a ``cross_attn``.

    Yields:
        A list to which each call adds its points, on the device of the network.

    Examples:
        >>> with record_sampling(network.detr.transformer.decoder.layers) as sampled:
        ...     outputs = network.decode(frames, len(frames))
        >>> sampled[0].locations.shape
    """
    sampled: list[SampledPoints] = []

    def record(
        module: MSDeformAttn, inputs: tuple[Tensor, Tensor, Tensor, Tensor, Levels], _: Tensor
    ) -> None:
        query, reference, _, _, levels = inputs
        n, q = query.shape[:2]
        shape = (n, q, module.num_heads, module.num_levels, module.num_points)
        offsets = module.sampling_offsets(query).to(reference.dtype).view(*shape, 2)
        logits = module.attention_weights(query).to(reference.dtype).view(shape)
        locations = sampling_locations(reference, offsets, levels.spatial_shapes)
        sampled.append(SampledPoints(locations, attention_weights(logits)))

    with ExitStack() as hooks:
        for layer in layers:
            hooks.callback(layer.get_submodule("cross_attn").register_forward_hook(record).remove)
        yield sampled


@torch.no_grad()
def trace(
    network: SeqFormerNetwork,
    options: InferenceOptions,
    frames: Iterable[Tensor],
    output_size: tuple[int, int] | None = None,
    *,
    with_masks: bool = True,
) -> Trace:
    """Runs a network on frames and records what its decoder attends to.

    All frames form one clip, whatever the options, because temporal weights are a softmax over the frames
    that are decoded together. Memory use grows with their number.

    :meth:`seqformer.inference.VideoPredictor.trace` takes RGB frames and resizes them for the network.

    Args:
        network: the network, in eval mode.
        options: select the candidates.
        frames: T images of the same size, (3, h, w), values 0 to 255, channels as in INPUT.FORMAT.
        output_size: height and width of the masks; by default those of the frames.
        with_masks: whether to add the masks.

    Raises:
        InputError: if there are no frames.

    Examples:
        >>> result = trace(network, options, frames)
        >>> layer, best = -1, result.queries[0]
        >>> result.temporal_weights[layer, :, best]
    """
    remaining = iter(frames)
    parts, image_size = [], (0, 0)
    while batch := list(islice(remaining, frames_together(network.device))):
        image_size = batch[0].shape[-2], batch[0].shape[-1]
        parts.append(network.encode(batch))
    if not parts:
        raise InputError("the video has no frames")
    encoded = EncodedFrames.cat(parts)
    with record_sampling(network.detr.transformer.decoder.layers) as sampled:
        outputs = network.decode(encoded, len(encoded))
    classes = torch.stack([network.classify(i, o)[0].float().sigmoid() for i, o in enumerate(outputs)])
    queries, masks = select_candidates(network, encoded, outputs[-1], classes[-1], options)
    size = output_size or image_size
    segmentations = _encode(masks, image_size, size, original=options.original) if with_masks else None
    ratios = encoded.valid_ratios[:, None, None, :, None]  # T, 1, 1, L, 1, 2
    return Trace(
        sampling_locations=_array(torch.stack([points.locations / ratios for points in sampled])),
        attention_weights=_array(torch.stack([points.weights for points in sampled])),
        reference_points=_array(outputs[0].reference[0]),
        boxes=_array(torch.cat([output.boxes for output in outputs])),
        temporal_weights=_array(torch.cat([output.temporal_weights for output in outputs])),
        class_probabilities=_array(classes),
        queries=queries.cpu().numpy(),
        segmentations=segmentations,
    )


def _encode(
    logits: Tensor, image_size: tuple[int, int], output_size: tuple[int, int], *, original: bool
) -> list[list[RLE | None]]:
    segmentations: list[list[RLE | None]] = [[] for _ in logits]
    for part in logits.split(_RESIZED_TOGETHER, dim=1):
        encoded = encode_outputs(part, image_size, output_size, original=original)
        for masks, rles in zip(segmentations, encoded, strict=True):
            masks += rles
    return segmentations


def _array(x: Tensor) -> np.ndarray:
    return x.float().cpu().numpy()
