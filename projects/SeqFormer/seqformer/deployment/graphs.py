"""The network as two modules for export: frames to encoded frames, and a clip of these to instances."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqformer.modeling.geometry import cell_padding
from seqformer.modeling.layers import Levels, MSDeformAttn
from seqformer.modeling.network import EncodedFrames, SeqFormerNetwork
from seqformer.ops import reference as plain

__all__ = ["ClipDecoder", "FrameEncoder", "GridSampleAttention", "with_fixed_padding", "with_grid_sample"]

_FEATURES = 3  # levels that the mask features are computed from


class GridSampleAttention(MSDeformAttn):
    """Deformable attention in standard operators, for runtimes without the compiled operator.

    Level sizes stay symbolic, so that a graph of it works at any size.
    """

    def sample(
        self, value: Tensor, reference: Tensor, offsets: Tensor, logits: Tensor, levels: Levels
    ) -> Tensor:
        n, _, heads, channels = value.shape
        q, points = offsets.shape[1], self.num_points
        sizes = levels.spatial_shapes
        grids = 2 * plain.sampling_locations(reference, offsets, sizes) - 1
        weights = plain.attention_weights(logits)
        cells = value.permute(0, 2, 3, 1).flatten(0, 1)  # N*M, D, S
        parts = cells.split([height * width for height, width in levels.shapes], dim=2)
        output = cells.new_zeros(n * heads, channels, q)
        for level, (part, shape) in enumerate(zip(parts, levels.shapes, strict=True)):
            grid = grids[:, :, :, level].transpose(1, 2).reshape(n * heads, q, points, 2)
            weight = weights[:, :, :, level].transpose(1, 2).reshape(n * heads, 1, q, points)
            samples = F.grid_sample(part.unflatten(2, shape), grid, align_corners=False)
            output = output + (samples * weight).sum(-1)
        return output.view(n, heads * channels, q).transpose(1, 2)


def with_grid_sample(network: SeqFormerNetwork) -> SeqFormerNetwork:
    """Returns a copy of the network whose deformable attention needs no compiled operator."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, MSDeformAttn):
            module.__class__ = GridSampleAttention
    return network


def with_fixed_padding(network: SeqFormerNetwork) -> SeqFormerNetwork:
    """Returns a copy of the network in which padding of convolutions does not depend on the frames' size.

    timm's models with TensorFlow's weights compute it from the size. It is constant for multiples of the
    stride, as here, but a graph of the formula takes many minutes to simplify.
    """
    network = copy.deepcopy(network)
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d) and type(child).__name__ == "Conv2dSame":
                setattr(parent, name, _fixed(child))
    return network


def _fixed(convolution: nn.Conv2d) -> nn.Module:
    extents = ((k - 1) * d + 1 for k, d in zip(convolution.kernel_size, convolution.dilation, strict=True))
    top_bottom, left_right = (max(e - s, 0) for e, s in zip(extents, convolution.stride, strict=True))
    sides = (left_right // 2, left_right - left_right // 2, top_bottom // 2, top_bottom - top_bottom // 2)
    plain_convolution = copy.copy(convolution)
    plain_convolution.__class__ = nn.Conv2d
    plain_convolution.padding = (0, 0)
    return nn.Sequential(nn.ZeroPad2d(sides), plain_convolution)


class FrameEncoder(nn.Module):
    """Encodes frames independently of each other."""

    def __init__(self, network: SeqFormerNetwork):
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor, size: Tensor) -> tuple[Tensor, ...]:
        """Normalises and encodes N frames of one size.

        Args:
            frames: (N, 3, H, W) uint8 in the model's channel order, padded on the right and bottom; H and W
                are multiples of 32.
            size: (2,) int64, unpadded height and width in pixels.

        Returns:
            memory (N, h, w, d) of each level, and mask features (N, d/32, H/8, W/8), contiguous, since
            compiled programs are for one layout of their inputs.
        """
        encoded = self.network.encode_padded(frames, size.flip(0).expand(frames.shape[0], 2))
        cells = [height * width for height, width in encoded.levels.shapes]
        parts = encoded.memory.split(cells, dim=1)
        memory = (
            part.unflatten(1, shape).contiguous()
            for part, shape in zip(parts, encoded.levels.shapes, strict=True)
        )
        return *memory, encoded.mask_features.contiguous()


class ClipDecoder(nn.Module):
    """Decodes a clip of encoded frames.

    Args:
        network: the network.
        num_candidates: number of queries whose masks are computed, at most.
    """

    def __init__(self, network: SeqFormerNetwork, num_candidates: int):
        super().__init__()
        self.network = network
        self.num_candidates = min(num_candidates, network.detr.query_embed.num_embeddings)

    def forward(
        self, memory: list[Tensor], mask_features: Tensor, size: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Decodes T frames, with the outputs of :class:`FrameEncoder`.

        Args:
            memory: (T, h, w, d) for each level.
            mask_features: (T, d/32, H/8, W/8).
            size: (2,) int64, unpadded height and width in pixels.

        Returns:
            class probabilities (Q, K); boxes (T, Q, 4), cxcywh, normalised to the unpadded frame; the N
            candidates (N,) int64, best first; and their mask logits (N, T, H/4, W/4), padding included.
        """
        network = self.network
        t = mask_features.shape[0]
        levels = Levels([(m.shape[1], m.shape[2]) for m in memory], mask_features.device)
        height, width = mask_features.shape[-2:]
        sizes = size.flip(0).expand(t, 2)
        padding_mask, valid_ratios = cell_padding(sizes, 8 * height, 8 * width, levels)
        cells = torch.cat([m.flatten(1, 2) for m in memory], dim=1)
        frames = EncodedFrames(cells, padding_mask, valid_ratios, sizes, mask_features, levels)
        outputs = network.decode(frames, t)
        last = outputs[-1]
        probabilities = network.classify(len(outputs) - 1, last)[0].sigmoid()
        candidates = probabilities.amax(1).topk(self.num_candidates).indices
        logits = network.masks(frames, last.instance_queries[0, candidates], last.reference[0][:, candidates])
        return probabilities, last.boxes[0], candidates, logits
