"""The network (backbone, transformer, heads) with its published parameter names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from detectron2.modeling import Backbone
from torch import Tensor, nn

from seqformer.errors import InputError, check_number
from seqformer.modeling.backbone import FEATURES
from seqformer.modeling.decoder import Decoder, DecoderLayer, DecoderOutput
from seqformer.modeling.encoder import Encoder, EncoderLayer
from seqformer.modeling.folding import FoldedCopy
from seqformer.modeling.geometry import FrameGeometry, GeometryOfSize, frame_geometry, image_padding
from seqformer.modeling.layers import MLP, Levels, MSDeformAttn, reset_parameters
from seqformer.modeling.mask_head import MaskFeatures, dynamic_masks, dynamic_parameters

__all__ = ["EncodedFrames", "QueryNetwork", "SeqFormerNetwork", "Transformer"]

_SIZE_DIVISOR = 32  # pixels per cell of the coarsest backbone feature
_WIDTH_DIVISOR = 32  # groups of GroupNorm; mask features have 1/32 of the width


@dataclass
class EncodedFrames:
    """N encoded frames, which do not depend on each other.

    Attributes:
        memory: (N, S, d).
        padding_mask: (N, S) bool, true where padded.
        valid_ratios: (N, L, 2), unpadded fraction of each level along x and y.
        sizes: (N, 2), unpadded width and height in pixels.
        mask_features: (N, d/32, H/8, W/8).
        levels: sizes of the L levels, which have S cells in total.
        values: (N, S, d) for each decoder layer, what it samples from; empty if not computed yet.
    """

    memory: Tensor
    padding_mask: Tensor
    valid_ratios: Tensor
    sizes: Tensor
    mask_features: Tensor
    levels: Levels
    values: tuple[Tensor, ...] = ()

    _PER_FRAME = ("memory", "padding_mask", "valid_ratios", "sizes", "mask_features")

    def __len__(self) -> int:
        return len(self.memory)

    def __getitem__(self, frames: slice) -> EncodedFrames:
        parts = {name: getattr(self, name)[frames] for name in self._PER_FRAME}
        return replace(self, **parts, values=tuple(values[frames] for values in self.values))

    @classmethod
    def cat(cls, parts: list[EncodedFrames]) -> EncodedFrames:
        """Concatenates frames of equal size, which all have values or all do not."""
        if len(parts) == 1:
            return parts[0]
        joined: dict[str, Any] = {
            name: torch.cat([getattr(part, name) for part in parts]) for name in cls._PER_FRAME
        }
        values = zip(*(part.values for part in parts), strict=True)
        return replace(parts[0], **joined, values=tuple(torch.cat(layer) for layer in values))


class Transformer(nn.Module):
    """Encoder and decoder. Source: SeqFormer, section 3.2.

    Args:
        dim: width d, a multiple of 32 and of ``num_heads``.
        num_levels: number of feature levels L, at least the backbone's 3.
        recompute: recompute layers in the backward pass instead of keeping their activations.

    Raises:
        InputError: if a number is out of its range.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        feedforward_dim: int,
        dropout: float,
        num_levels: int,
        encoder_layers: int,
        encoder_points: int,
        decoder_layers: int,
        decoder_points: int,
        recompute: bool = False,
    ):
        super().__init__()
        check_number("num_heads", num_heads, integer=True, at_least=1)
        if dim % _WIDTH_DIVISOR or dim % num_heads:
            raise InputError(f"`dim` must be a multiple of {_WIDTH_DIVISOR} and of `num_heads`, not {dim}")
        check_number("num_levels", num_levels, integer=True, at_least=len(FEATURES))
        check_number("decoder_layers", decoder_layers, integer=True, at_least=1)
        shared = (dim, feedforward_dim, dropout, num_levels, num_heads)
        self.level_embed = nn.Parameter(torch.empty(num_levels, dim))
        self.encoder = Encoder(
            [EncoderLayer(*shared, encoder_points) for _ in range(encoder_layers)], recompute
        )
        self.decoder = Decoder(
            [DecoderLayer(*shared, decoder_points) for _ in range(decoder_layers)], recompute
        )
        self.reference_points = nn.Linear(dim, 2)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        for module in self.modules():
            if isinstance(module, MSDeformAttn):
                module.reset_parameters()
        nn.init.zeros_(self.reference_points.bias)
        nn.init.normal_(self.level_embed)

    def encode(self, features: list[Tensor], geometry: FrameGeometry) -> Tensor:
        """Encodes frames: (N, d, h, w) for each level -> (N, S, d)."""
        cells = [height * width for height, width in geometry.levels.shapes]
        embedding = torch.cat(
            [embedding.expand(count, -1) for embedding, count in zip(self.level_embed, cells, strict=True)]
        )
        x = torch.cat([feature.flatten(2).transpose(1, 2) for feature in features], dim=1)
        return self.encoder(x, geometry.position + embedding, geometry)

    def decode(
        self, query_embed: Tensor, frames: EncodedFrames, num_frames: int, groups: int = 1
    ) -> list[DecoderOutput]:
        """Decodes B videos of T frames each, B * T frames in total, from query embeddings (Q, 2d).

        The queries form ``groups`` equal groups, which do not attend to each other.
        """
        num_videos = frames.memory.shape[0] // num_frames
        position, content = query_embed.unsqueeze(0).expand(num_videos, -1, -1).chunk(2, dim=-1)
        with torch.autocast(position.device.type, enabled=False):
            # Half precision is too coarse for points.
            reference = self.reference_points(position).sigmoid()
        return self.decoder(
            content,
            position,
            reference,
            frames.memory,
            frames.padding_mask,
            frames.valid_ratios,
            frames.levels,
            num_frames,
            groups,
            frames.values,
        )


class QueryNetwork(nn.Module):
    """Backbone, projections, transformer, and the class and box heads (``detr.detr`` in checkpoints).

    With ``query_groups`` above 1, training uses additional groups of queries.

    Raises:
        InputError: if a number is below 1.
    """

    def __init__(
        self,
        backbone: Backbone,
        transformer: Transformer,
        num_queries: int,
        num_classes: int,
        query_groups: int = 1,
    ):
        super().__init__()
        check_number("num_queries", num_queries, integer=True, at_least=1)
        check_number("num_classes", num_classes, integer=True, at_least=1)
        check_number("query_groups", query_groups, integer=True, at_least=1)
        dim = transformer.level_embed.shape[1]
        num_levels = transformer.level_embed.shape[0]
        num_layers = len(transformer.decoder.layers)
        self.transformer = transformer
        class_heads = [nn.Linear(dim, num_classes) for _ in range(num_layers)]
        box_heads = [MLP(dim, dim, 4, 3) for _ in range(num_layers)]
        self.class_embed = nn.ModuleList(class_heads)
        self.bbox_embed = nn.ModuleList(box_heads)
        transformer.decoder.bbox_embed = self.bbox_embed
        self.query_embed = nn.Embedding(num_queries, 2 * dim)
        self.query_groups = query_groups
        if query_groups > 1:  # a separate parameter, so that published names do not change
            self.training_query_embed = nn.Embedding((query_groups - 1) * num_queries, 2 * dim)
        self.register_load_state_dict_pre_hook(_fit_training_queries)

        shapes = backbone.output_shape()
        channels = [shapes[name].channels for name in FEATURES]
        convolutions = [nn.Conv2d(c, dim, 1) for c in channels]
        for level in range(len(FEATURES), num_levels):
            c = channels[-1] if level == len(FEATURES) else dim
            convolutions.append(nn.Conv2d(c, dim, 3, stride=2, padding=1))
        self.input_proj = nn.ModuleList(nn.Sequential(c, nn.GroupNorm(32, dim)) for c in convolutions)
        self._folded = FoldedCopy()
        # Released checkpoints call it backbone.0.backbone.
        self.backbone = nn.ModuleList([nn.ModuleDict({"backbone": backbone})])

        for convolution in convolutions:
            reset_parameters(convolution, nn.init.xavier_uniform_)
        for class_head in class_heads:
            nn.init.constant_(class_head.bias, -math.log(99))  # probability 0.01
        for box_head in box_heads:
            reset_parameters(box_head.layers[-1], nn.init.zeros_)
        nn.init.constant_(box_heads[0].layers[-1].get_parameter("bias")[2:], -2.0)

    def train(self, mode: bool = True) -> QueryNetwork:
        """Sets the mode, as in PyTorch."""
        self._folded = FoldedCopy()
        return super().train(mode)

    def features(self, images: Tensor) -> list[Tensor]:
        """Returns the projected features of all levels, (N, d, h, w), of padded images (N, 3, H, W)."""
        backbone = self.backbone.get_submodule("0.backbone")
        recorded = torch.is_grad_enabled() and (images.requires_grad or _is_trained(backbone))
        if not (recorded or torch.compiler.is_compiling()):
            folded = self._folded.of(backbone, images)
            if folded is not backbone and images.device.type == "cpu":
                images = images.contiguous(memory_format=torch.channels_last)
            backbone = folded
        outputs = backbone(images)
        raw = [outputs[name] for name in FEATURES]
        features: list[Tensor] = []
        for level, projection in enumerate(self.input_proj):
            source = raw[min(level, len(raw) - 1)] if level <= len(raw) else features[-1]
            projected = projection.get_submodule("0")(source)
            if projected.device.type == "cpu" and projected.dtype == torch.bfloat16:
                projected = projected.contiguous()  # the norm takes ten times longer in channels-last memory
            features.append(projection.get_submodule("1")(projected))
        return features


def _is_trained(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _fit_training_queries(network: QueryNetwork, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Makes checkpoints load with or without the additional training queries."""
    name = f"{prefix}training_query_embed.weight"
    if network.query_groups == 1:
        state.pop(name, None)
    else:
        state.setdefault(name, network.training_query_embed.weight.detach())


class SeqFormerNetwork(nn.Module):
    """The whole network: frames -> encoded frames -> queries -> masks (``detr`` in checkpoints).

    Args:
        query_network: backbone, transformer, class and box heads.
        pixel_mean, pixel_std: mean and standard deviation of the three input channels, in the input's channel
            order. Checkpoints do not contain them.
        size_divisibility: frames are padded to multiples of it, pixels; 1 for no padding, as in the original
            release.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        query_network: QueryNetwork,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        size_divisibility: int = _SIZE_DIVISOR,
    ):
        super().__init__()
        self.size_divisibility = size_divisibility
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), persistent=False)
        self.detr = query_network
        dim = query_network.transformer.level_embed.shape[1]
        self.autocast_dtype: torch.dtype | None = None  # of encode and decode; see precision.py
        self._geometry = GeometryOfSize()
        self.mask_head = MaskFeatures(dim)
        self.controller = MLP(dim, dim, dynamic_parameters(self.mask_head.out_dim), 3)
        reset_parameters(self.controller, nn.init.xavier_uniform_)

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def encode(self, images: Sequence[Tensor]) -> EncodedFrames:
        """Normalises, pads and encodes frames independently of each other.

        Args:
            images: N tensors (3, h, w), values 0 to 255, on any device. They are zero-padded on the right and
                bottom to a common size whose sides are multiples of ``size_divisibility``.
        """
        height, width = (
            math.ceil(max(sides) / self.size_divisibility) * self.size_divisibility
            for sides in zip(*(image.shape[1:] for image in images), strict=True)
        )
        dtypes = {image.dtype for image in images}
        dtype = dtypes.pop() if len(dtypes) == 1 else self.pixel_mean.dtype
        padded = torch.zeros(len(images), 3, height, width, dtype=dtype, device=images[0].device)
        for frame, image in zip(padded, images, strict=True):
            frame[:, : image.shape[1], : image.shape[2]] = image
        sizes = [(image.shape[2], image.shape[1]) for image in images]
        is_padded = any(size != (width, height) for size in sizes)
        size = sizes[0] if len(set(sizes)) == 1 else None
        return self.encode_padded(
            padded.to(self.device), torch.tensor(sizes, device=self.device), is_padded=is_padded, size=size
        )

    def encode_padded(
        self,
        frames: Tensor,
        sizes: Tensor,
        *,
        is_padded: bool = True,
        size: tuple[int, int] | None = None,
    ) -> EncodedFrames:
        """Normalises and encodes frames that are padded.

        Args:
            frames: (N, 3, H, W), values 0 to 255.
            sizes: (N, 2), unpadded width and height in pixels.
            is_padded: whether any frame is smaller than H x W.
            size: unpadded width and height, if all frames are known to have the same: what depends on it
                alone is then computed once for many calls.
        """
        height, width = frames.shape[-2:]
        batch = (frames - self.pixel_mean) / self.pixel_std
        if is_padded:
            batch = batch.masked_fill_(image_padding(sizes, height, width).unsqueeze(1), 0.0)
        with self._autocast():
            features = self.detr.features(batch)
            shapes, dim = [(f.shape[-2], f.shape[-1]) for f in features], features[0].shape[1]
            if size:
                geometry = self._geometry.of(size, height, width, shapes, dim, frames.device)
                geometry = geometry.expand(len(frames))
            else:
                geometry = frame_geometry(sizes, height, width, Levels(shapes, frames.device), dim)
            memory = self.detr.transformer.encode(features, geometry)
            mask_features = self.mask_head(*geometry.levels.split(memory)[: len(FEATURES)])
        return EncodedFrames(
            memory, geometry.padding_mask, geometry.valid_ratios, sizes, mask_features, geometry.levels
        )

    def decode(self, frames: EncodedFrames, num_frames: int) -> list[DecoderOutput]:
        """Decodes B videos of T = ``num_frames`` frames, B * T frames in total; one output per decoder layer.

        In training mode the queries of all groups are decoded, in order, otherwise only the first group.
        """
        embed, groups = self.detr.query_embed.weight, 1
        if self.training and self.detr.query_groups > 1:
            embed, groups = torch.cat((embed, self.detr.training_query_embed.weight)), self.detr.query_groups
        with self._autocast():
            return self.detr.transformer.decode(embed, frames, num_frames, groups)

    def _autocast(self) -> AbstractContextManager[object]:
        if self.autocast_dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, self.autocast_dtype)

    def with_values(self, frames: EncodedFrames) -> EncodedFrames:
        """Adds the values of all decoder layers. They do not depend on the clip that is decoded."""
        if frames.values:
            return frames
        with self._autocast():
            values = self.detr.transformer.decoder.values(frames.memory, frames.padding_mask)
        return replace(frames, values=values)

    def classify(self, layer: int, output: DecoderOutput) -> Tensor:
        """Returns the class logits (B, Q, K) of one decoder layer."""
        return self.detr.class_embed[layer](output.instance_queries)

    def masks(
        self,
        frames: EncodedFrames,
        instance_queries: Tensor,
        reference: Tensor,
        videos: Tensor | None = None,
    ) -> Tensor:
        """Computes the masks of instances.

        Args:
            frames: the T encoded frames of a video, or of several videos, one after the other.
            instance_queries: (N, d), from one decoder layer.
            reference: (T, N, 2 or 4), the layer's references, normalised to the unpadded frame.
            videos: (N,) int64, the video of each instance; None if there is one video.

        Returns:
            (N, T, H/4, W/4) logits, padding included, float32.
        """
        features, sizes = frames.mask_features, frames.sizes  # T, c, h, w and T, 2
        if videos is not None:
            features, sizes = (x.unflatten(0, (-1, len(reference)))[videos] for x in (features, sizes))
        centres = reference[..., :2].transpose(0, 1) * sizes  # N, T, 2
        parameters = self.controller(instance_queries)
        with torch.autocast(instance_queries.device.type, enabled=False):
            # Half precision is too coarse for coordinates in pixels.
            return dynamic_masks(features.float(), parameters.float(), centres.float())
