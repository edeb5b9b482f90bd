"""Drawing tracklets on the frames of a video."""

from __future__ import annotations

import numpy as np
from videos import frames

from seqformer.formats.rle import encode_masks
from seqformer.structures import FrameInstance, Tracklet
from seqformer.visualization import draw_frame, draw_instances, draw_tracklets

NAMES = ["cat", "dog"]


def masks(left: int) -> np.ndarray:
    """Masks (3, 96, 128), bool; the middle one is empty."""
    made = np.zeros((3, 96, 128), dtype=bool)
    made[:, 40:80, left : left + 20] = True
    made[1] = False
    return made


def test_agrees_with_drawing_each_frame() -> None:
    first, second = masks(10), np.roll(masks(70), 1, axis=0)  # not in the last frame
    found = [Tracklet(4, 1, 0.9, encode_masks(first)), Tracklet(2, 0, 0.5, encode_masks(second))]
    drawn = list(draw_tracklets(frames(3), found, NAMES))
    expected = [
        draw_instances(frames(3)[0], np.stack([first[0], second[0]]), [4, 2], ["dog", "cat"], [0.9, 0.5]),
        draw_instances(frames(3)[1], second[1:2], [2], ["cat"], [0.5]),
        draw_instances(frames(3)[2], first[2:], [4], ["dog"], [0.9]),
    ]
    np.testing.assert_array_equal(drawn, expected)


def test_input_frame_is_not_modified() -> None:
    (frame,) = frames(1)
    (mask, *_) = encode_masks(masks(10))
    drawn = draw_frame(frame, [FrameInstance(0, 0, 0.9, mask)], NAMES)
    assert (drawn != frame).any()
    np.testing.assert_array_equal(frame, frames(1)[0])
    assert draw_frame(frame, [], NAMES) is frame
