"""Pictures of training clips: positions and colours of what is drawn."""

from __future__ import annotations

import numpy as np
import torch
from networks import two_moving_squares

from seqformer.visualization import instance_color
from seqformer.visualization.clips import draw_clip

NAMES = ["light", "dark"]


def clip() -> dict:
    """160 pixels high, so that labels leave space; the dark square is not visible in the last frame."""
    video = two_moving_squares(size=160)
    return video | {"image": [image.to(torch.uint8) for image in video["image"]]}


def test_instances_are_tinted_in_their_colours_in_every_frame() -> None:
    drawn = draw_clip(clip(), NAMES)
    assert drawn.shape == (160, 3 * 160 + 2 * 4, 3)
    for t in range(3):
        frame = drawn[:, t * 164 : t * 164 + 160]
        expected = np.rint(0.6 * 250 + 0.4 * np.array(instance_color(0)))
        np.testing.assert_array_equal(frame[22, 16 + 10 * t], expected)
        assert (frame[27, 4 + 10 * t] == instance_color(0)).all(), "the box's corner"
        if t < 2:
            assert (frame[51 + 6 * t, 57] == instance_color(1)).all()
    assert not (drawn[:, 328:] == instance_color(1)).all(-1).any(), "what is not visible is not drawn"


def test_output_is_rgb() -> None:
    plain = clip()
    turned = plain | {"image": [image.flip(0) for image in plain["image"]]}
    np.testing.assert_array_equal(draw_clip(plain, NAMES), draw_clip(turned, NAMES, "BGR"))
