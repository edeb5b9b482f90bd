"""What follows from the sizes of frames alone: padding, positions and reference points of all cells."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from seqformer.modeling.layers import Levels
from seqformer.modeling.position_encoding import sine_position_encoding

__all__ = [
    "FrameGeometry",
    "GeometryOfSize",
    "cell_padding",
    "frame_geometry",
    "image_padding",
    "reference_points",
]


@dataclass(frozen=True)
class FrameGeometry:
    """The cells of N frames.

    Attributes:
        levels: sizes of the L levels, which have S cells in total.
        padding_mask: (N, S) bool, true where padded.
        valid_ratios: (N, L, 2), unpadded fraction of each level along x and y.
        position: (N, S, d) position encoding; (1, S, d) after :meth:`expand`.
        reference: (N, S, L, 2), each cell's centre on every level; see :func:`reference_points`.
    """

    levels: Levels
    padding_mask: Tensor
    valid_ratios: Tensor
    position: Tensor
    reference: Tensor

    def expand(self, num_frames: int) -> FrameGeometry:
        """Returns that of ``num_frames`` equal frames, from that of one, without copies."""
        return replace(
            self,
            padding_mask=self.padding_mask.expand(num_frames, -1),
            valid_ratios=self.valid_ratios.expand(num_frames, -1, -1),
            reference=self.reference.expand(num_frames, -1, -1, -1),
        )


def frame_geometry(sizes: Tensor, height: int, width: int, levels: Levels, dim: int) -> FrameGeometry:
    """Returns the geometry of N frames.

    Args:
        sizes: (N, 2), unpadded width and height in pixels.
        height, width: padded size in pixels.
        levels: sizes of the levels.
        dim: number of features d of the position encoding.
    """
    masks = _level_padding(sizes, height, width, levels)
    position = torch.cat([sine_position_encoding(mask, dim).flatten(1, 2) for mask in masks], dim=1)
    ratios = _valid_ratios(masks)
    padding_mask = torch.cat([mask.flatten(1) for mask in masks], dim=1)
    return FrameGeometry(levels, padding_mask, ratios, position, reference_points(levels, ratios))


def cell_padding(sizes: Tensor, height: int, width: int, levels: Levels) -> tuple[Tensor, Tensor]:
    """Returns padding mask (N, S) and valid ratios (N, L, 2) alone; see :func:`frame_geometry`."""
    masks = _level_padding(sizes, height, width, levels)
    return torch.cat([mask.flatten(1) for mask in masks], dim=1), _valid_ratios(masks)


def image_padding(sizes: Tensor, height: int, width: int) -> Tensor:
    """Returns which pixels are padding, (N, H, W) bool, from unpadded widths and heights (N, 2)."""
    y = torch.arange(height, device=sizes.device)[None, :, None]
    x = torch.arange(width, device=sizes.device)[None, None, :]
    return (y >= sizes[:, 1, None, None]) | (x >= sizes[:, 0, None, None])


def reference_points(levels: Levels, valid_ratios: Tensor) -> Tensor:
    """Returns each cell's centre as a point on every level.

    Args:
        valid_ratios: (N, L, 2), unpadded fraction of each level along x and y.

    Returns:
        (N, S, L, 2), xy normalised to the padded levels.
    """
    centres = []
    for level, (height, width) in enumerate(levels.shapes):
        y = torch.arange(height, dtype=torch.float32, device=valid_ratios.device) + 0.5
        x = torch.arange(width, dtype=torch.float32, device=valid_ratios.device) + 0.5
        y = y[None] / (valid_ratios[:, level, 1, None] * height)  # N, h
        x = x[None] / (valid_ratios[:, level, 0, None] * width)  # N, w
        xy = torch.stack((x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)), dim=-1)
        centres.append(xy.flatten(1, 2))
    return torch.cat(centres, dim=1)[:, :, None] * valid_ratios[:, None]


def _level_padding(sizes: Tensor, height: int, width: int, levels: Levels) -> list[Tensor]:
    """Returns (N, h, w) bool for each level, true where padded."""
    padded = image_padding(sizes, height, width).unsqueeze(1).float()
    return [F.interpolate(padded, size=shape, mode="nearest")[:, 0].bool() for shape in levels.shapes]


def _valid_ratios(masks: list[Tensor]) -> Tensor:
    ratios = [
        torch.stack(((~mask[:, 0, :]).float().mean(1), (~mask[:, :, 0]).float().mean(1)), dim=-1)
        for mask in masks
    ]
    return torch.stack(ratios, dim=1)


class GeometryOfSize:
    """Keeps the geometry of the last size of frames, since all frames of a video have the same.

    It belongs to no module, so checkpoints do not contain it; copies and pickles of this object are empty.
    """

    def __init__(self) -> None:
        # Assigned as a whole, so that threads never see the geometry of another key.
        self._kept: tuple[object, FrameGeometry] | None = None

    def __reduce__(self) -> tuple[type[GeometryOfSize], tuple[()]]:
        return GeometryOfSize, ()

    def of(
        self,
        size: tuple[int, int],
        height: int,
        width: int,
        shapes: list[tuple[int, int]],
        dim: int,
        device: torch.device,
    ) -> FrameGeometry:
        """Returns the geometry of one frame.

        Args:
            size: unpadded width and height in pixels.
            height, width: padded size in pixels.
            shapes: height and width of each level in cells.
            dim: number of features of the position encoding.
            device: where the tensors are.
        """
        # Tensors of inference mode cannot be used in training.
        key = size, height, width, tuple(shapes), dim, device, torch.is_inference_mode_enabled()
        kept = self._kept
        if kept is None or kept[0] != key:
            sizes = torch.tensor([size], device=device)
            kept = key, frame_geometry(sizes, height, width, Levels(shapes, device), dim)
            self._kept = kept
        return kept[1]
