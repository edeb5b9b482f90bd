from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqformer.modeling.position_encoding import sine_position_encoding


@settings(max_examples=20)
@given(height=st.integers(1, 5), width=st.integers(1, 5), bottom=st.integers(0, 3), right=st.integers(0, 3))
def test_agrees_with_the_formula(height: int, width: int, bottom: int, right: int) -> None:
    """Checks every cell and feature, for an image padded at the bottom and right."""
    dim = 12
    mask = torch.ones(1, height + bottom, width + right, dtype=torch.bool)
    mask[:, :height, :width] = False
    encoded = sine_position_encoding(mask, dim)
    assert encoded.shape == (1, height + bottom, width + right, dim)
    for row in range(height):
        for column in range(width):
            y = (row + 0.5) / (height + 1e-6) * 2 * math.pi
            x = (column + 0.5) / (width + 1e-6) * 2 * math.pi
            expected = []
            for coordinate in (y, x):
                for i in range(dim // 2):
                    angle = coordinate / 10000 ** (2 * (i // 2) / (dim // 2))
                    expected.append(math.cos(angle) if i % 2 else math.sin(angle))
            torch.testing.assert_close(encoded[0, row, column], torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_images_of_a_batch_do_not_mix() -> None:
    masks = torch.zeros(2, 4, 6, dtype=torch.bool)
    masks[1, 3:] = masks[1, :, 5:] = True
    together = sine_position_encoding(masks, 8)
    for mask, encoded in zip(masks, together, strict=True):
        assert torch.equal(sine_position_encoding(mask[None], 8)[0], encoded)
    assert not torch.allclose(together[0, :3, :5], together[1, :3, :5]), "places are relative to the image"
