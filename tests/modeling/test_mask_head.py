from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqformer.modeling.mask_head import MaskFeatures, dynamic_masks, dynamic_parameters

N, T, C, H, W = 3, 2, 4, 5, 6


def make_inputs() -> tuple[Tensor, Tensor, Tensor]:
    features = torch.randn(T, C, H, W, dtype=torch.float64)
    parameters = torch.randn(N, dynamic_parameters(C), dtype=torch.float64)
    return features, parameters, torch.rand(N, T, 2, dtype=torch.float64) * 40


def readable_masks(features: Tensor, parameters: Tensor, reference: Tensor) -> Tensor:
    """(N, T, H, W) at stride 8, one instance and frame at a time."""
    y, x = torch.meshgrid(torch.arange(H) * 8.0 + 4, torch.arange(W) * 8.0 + 4, indexing="ij")
    logits = torch.zeros(N, T, H, W, dtype=torch.float64)
    for i in range(N):
        w1, w2, w3, b1, b2, b3 = parameters[i].split([(C + 2) * 8, 64, 8, 8, 8, 1])
        for t in range(T):
            dx, dy = reference[i, t, 0] - x, reference[i, t, 1] - y
            hidden = torch.cat((torch.stack((dx, dy)), features[t])).flatten(1)
            for weight, bias in ((w1, b1), (w2, b2)):
                hidden = (weight.view(8, -1) @ hidden + bias[:, None]).relu()
            logits[i, t] = (w3.view(1, 8) @ hidden + b3).view(H, W)
    return logits


def test_dynamic_masks_agree_with_plain_convolutions() -> None:
    inputs = make_inputs()
    drawn, logits = dynamic_masks(*inputs), readable_masks(*inputs)
    assert drawn.shape == (N, T, 2 * H, 2 * W)
    # Odd cells coincide with coarse ones, even cells are between two; the first cells repeat the border.
    torch.testing.assert_close(drawn[..., 1::2, 1::2], logits, rtol=1e-5, atol=1e-5)
    padded = F.pad(logits, (1, 0, 1, 0), mode="replicate")
    across = (padded[..., 1:, :-1] + padded[..., 1:, 1:]) / 2
    torch.testing.assert_close(drawn[..., 1::2, 0::2], across, rtol=1e-5, atol=1e-5)
    both = (padded[..., :-1, :-1] + padded[..., :-1, 1:] + padded[..., 1:, :-1] + padded[..., 1:, 1:]) / 4
    torch.testing.assert_close(drawn[..., 0::2, 0::2], both, rtol=1e-5, atol=1e-5)


def test_a_mask_moves_with_its_reference() -> None:
    """Without features a mask depends only on its reference."""
    _, parameters, reference = make_inputs()
    features = torch.zeros(T, C, H, W, dtype=torch.float64)
    first = dynamic_masks(features, parameters, reference)
    second = dynamic_masks(features, parameters, reference + torch.tensor([8.0, 16.0]))
    torch.testing.assert_close(second[..., 5:, 3:], first[..., 1:-4, 1:-2], rtol=1e-6, atol=1e-6)


def test_instances_and_frames_do_not_mix() -> None:
    features, parameters, reference = make_inputs()
    together = dynamic_masks(features, parameters, reference)
    for i in range(N):
        for t in range(T):
            alone = dynamic_masks(features[t : t + 1], parameters[i : i + 1], reference[i : i + 1, t : t + 1])
            torch.testing.assert_close(together[i : i + 1, t : t + 1], alone)


@pytest.mark.parametrize("sizes", [((8, 12), (4, 6), (2, 3)), ((5, 7), (3, 4), (2, 2))])
@torch.no_grad()
def test_mask_features_are_a_small_pyramid(sizes: tuple[tuple[int, int], ...]) -> None:
    """Convolutions, each with ReLU; every cell adds the nearest cell of the coarser level."""
    dim = 64
    head = MaskFeatures(dim)
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.05)
    levels = [torch.randn(2, dim, *size) for size in sizes]

    def conv(module: nn.Conv2d, x: Tensor) -> Tensor:
        windows = F.unfold(x, 3, padding=1)  # 2, 9 * channels, cells
        out = module.weight.flatten(1) @ windows + module.bias[:, None]
        return out.view(len(x), -1, *x.shape[-2:]).clamp(min=0)

    def enlarged(x: Tensor, size: tuple[int, int]) -> Tensor:
        rows = [row * x.shape[2] // size[0] for row in range(size[0])]
        columns = [column * x.shape[3] // size[1] for column in range(size[1])]
        return x[:, :, rows][..., columns]

    stride8, stride16, stride32 = levels
    x = stride16 + enlarged(conv(head.lay3, stride32), sizes[1])
    x = stride8 + enlarged(conv(head.lay4, x), sizes[0])
    expected = conv(head.lay2, conv(head.lay1, conv(head.dcn, x)))
    actual = head(stride8, stride16, stride32)
    assert actual.shape == (2, dim // 32, *sizes[0])
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
