"""Mask features of a frame, and the dynamic convolutions that compute instance masks from them."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqformer.modeling.layers import reset_parameters

__all__ = ["DYNAMIC_CHANNELS", "MASK_FEATURE_STRIDE", "MaskFeatures", "dynamic_masks", "dynamic_parameters"]

MASK_FEATURE_STRIDE = 8  # pixels per cell of the mask features
DYNAMIC_CHANNELS = 8  # width of the dynamic convolutions
_COORDINATES = 2


class MaskFeatures(nn.Module):
    """A small feature pyramid over encoder outputs. Source: SeqFormer, section 3.3, "Mask head"."""

    def __init__(self, dim: int):
        super().__init__()
        self.out_dim = dim // 32
        self.lay1 = nn.Conv2d(dim, dim // 4, 3, padding=1)
        self.lay2 = nn.Conv2d(dim // 4, self.out_dim, 3, padding=1)
        self.lay3 = nn.Conv2d(dim, dim, 3, padding=1)
        self.lay4 = nn.Conv2d(dim, dim, 3, padding=1)
        self.dcn = nn.Conv2d(dim, dim, 3, padding=1)
        reset_parameters(self, partial(nn.init.kaiming_uniform_, a=1))

    def forward(self, stride8: Tensor, stride16: Tensor, stride32: Tensor) -> Tensor:
        """(N, d, H/8, W/8), (N, d, H/16, W/16), (N, d, H/32, W/32) -> (N, d/32, H/8, W/8)."""
        x = F.relu(self.lay3(stride32))
        x = stride16 + F.interpolate(x, size=stride16.shape[-2:], mode="nearest")
        x = F.relu(self.lay4(x))
        x = stride8 + F.interpolate(x, size=stride8.shape[-2:], mode="nearest")
        x = F.relu(self.dcn(x))
        return F.relu(self.lay2(F.relu(self.lay1(x))))


def dynamic_parameters(feature_dim: int) -> int:
    """Returns the number of parameters of one instance's dynamic convolutions."""
    c = DYNAMIC_CHANNELS
    return (feature_dim + _COORDINATES) * c + c * c + c + c + c + 1


def dynamic_masks(features: Tensor, parameters: Tensor, reference: Tensor) -> Tensor:
    """Computes the masks of instances.

    Three 1x1 convolutions, with weights computed from the instance queries, are applied to the mask features
    and the coordinates relative to the instance's reference. The relative coordinates are never stored. The
    first convolution is linear, so absolute coordinates are convolved once for all frames, and the reference
    becomes a bias for each instance and frame.

    Args:
        features: stride 8; (T, c, h, w) if all instances are of one video, otherwise (N, T, c, h, w).
        parameters: (N, P), weights of the three convolutions followed by their biases.
        reference: (N, T, 2), xy in pixels of the padded frame.

    Returns:
        (N, T, 2h, 2w) logits, stride 4.

    Source: SeqFormer, section 3.3; CondInst, section 3.2.
    """
    n, t = reference.shape[:2]
    c, h, w = features.shape[-3:]
    width = DYNAMIC_CHANNELS
    sizes = [(c + _COORDINATES) * width, width * width, width, width, width, 1]
    w1, w2, w3, b1, b2, b3 = parameters.split(sizes, dim=1)
    w_xy, w_features = w1.view(n, width, c + _COORDINATES).split([_COORDINATES, c], dim=2)

    stride = MASK_FEATURE_STRIDE
    y = torch.arange(h, dtype=features.dtype, device=features.device) * stride + stride // 2
    x = torch.arange(w, dtype=features.dtype, device=features.device) * stride + stride // 2
    grid = torch.stack((x.expand(h, w), y[:, None].expand(h, w))).flatten(1)  # 2, h*w

    of_video = features.transpose(-4, -3).flatten(-2)  # c, T, h*w
    hidden = torch.einsum("noc,ctp->notp" if features.dim() == 4 else "noc,nctp->notp", w_features, of_video)
    hidden = hidden + (torch.einsum("nox,ntx->not", w_xy, reference) + b1.unsqueeze(-1)).unsqueeze(-1)
    hidden = F.relu(hidden - torch.matmul(w_xy, grid).unsqueeze(2)).flatten(2)  # N, 8, T*h*w
    hidden = F.relu(torch.baddbmm(b2.unsqueeze(-1), w2.view(n, width, width), hidden))
    logits = torch.baddbmm(b3.unsqueeze(-1), w3.view(n, 1, width), hidden)
    return _upsample_twice(logits.view(n, t, h, w))


def _upsample_twice(x: Tensor) -> Tensor:
    """(N, T, h, w) -> (N, T, 2h, 2w), bilinear; the centres of the cells keep their places."""
    h, w = x.shape[-2:]
    x = F.pad(x, (0, 1, 0, 1), mode="replicate")
    x = F.interpolate(x, size=(2 * h + 1, 2 * w + 1), mode="bilinear", align_corners=True)
    x = F.pad(x, (1, 0, 1, 0), mode="replicate")
    return x[..., : 2 * h, : 2 * w]
