from __future__ import annotations

import numpy as np
import pytest

from seqformer.formats.rle import encode_masks
from seqformer.structures import Trace
from seqformer.visualization.crop import crop_frames, crop_row, crop_trace, windows
from seqformer.visualization.figures import Frames
from seqformer.visualization.rows import Row, ShownInstance

SIZE = HEIGHT, WIDTH = 200, 300


def moving(hidden: int | None = 1) -> Row:
    """A rectangle of 20 x 40 pixels that moves right; hidden in one of three frames."""
    masks = np.zeros((3, HEIGHT, WIDTH), dtype=bool)
    for t in range(3):
        if t != hidden:
            masks[t, 90:110, 20 + 100 * t : 60 + 100 * t] = True
    return Row("result", [ShownInstance(0, "fish", 0.9, encode_masks(masks))])


def test_windows_have_one_size_and_follow_the_instance() -> None:
    boxes = windows([moving()], [0, 1, 2], SIZE)
    assert {(box.right - box.left, box.bottom - box.top) for box in boxes} == {(60, 48)}
    assert boxes[0] == (10, 76, 70, 124)
    assert boxes[1] in (boxes[0], boxes[2]), "hidden: the window of a neighbour"
    assert boxes[2] == (210, 76, 270, 124)


def test_windows_stay_in_the_frame() -> None:
    masks = np.zeros((1, HEIGHT, WIDTH), dtype=bool)
    masks[0, :10, 280:] = True
    (box,) = windows([Row("", [ShownInstance(0, "", None, encode_masks(masks))])], [0], SIZE)
    assert box.top == 0 and box.right == WIDTH


def test_without_instances_the_whole_frame_is_shown() -> None:
    assert windows([Row("", [])], [0, 1], SIZE) == [(0, 0, WIDTH, HEIGHT)] * 2


def test_pictures_and_masks_are_cropped_alike() -> None:
    row = moving()
    boxes = windows([row], [0, 2], SIZE)
    pictures = [np.repeat(255 * row.instances[0].mask(t)[..., None], 3, axis=2) for t in (0, 2)]
    frames = crop_frames(Frames(pictures, [0, 2]), boxes)
    cropped = crop_row(row, [0, 2], boxes).instances[0]
    assert frames.size == (48, 60)
    for t, picture in zip((0, 2), frames.pictures, strict=True):
        assert np.array_equal(255 * cropped.mask(t), picture[..., 0])
        assert cropped.mask(t).sum() == 20 * 40
    assert cropped.masks[1] is None


@pytest.mark.parametrize("frame", [0, 1, 2])
def test_points_keep_their_place_in_the_picture(frame: int) -> None:
    rng = np.random.default_rng(0)
    trace = Trace(
        sampling_locations=rng.random((2, 3, 4, 2, 4, 3, 2)),
        attention_weights=rng.random((2, 3, 4, 2, 4, 3)),
        reference_points=rng.random((3, 4, 2)),
        boxes=rng.random((2, 3, 4, 4)),
        temporal_weights=rng.random((2, 3, 4)),
        class_probabilities=rng.random((2, 4, 5)),
        queries=np.array([1, 3]),
        segmentations=None,
    )
    boxes = windows([moving()], [0, 1, 2], SIZE)
    cropped = crop_trace(trace, boxes, SIZE)
    box = boxes[frame]
    small, corner = (box.right - box.left, box.bottom - box.top), (box.left, box.top)
    for before, after in (
        (trace.sampling_locations[:, frame], cropped.sampling_locations[:, frame]),
        (trace.reference_points[frame], cropped.reference_points[frame]),
        (trace.boxes[:, frame, :, :2], cropped.boxes[:, frame, :, :2]),
    ):
        np.testing.assert_allclose(after * small + corner, before * (WIDTH, HEIGHT))
    np.testing.assert_allclose(
        cropped.boxes[:, frame, :, 2:] * small, trace.boxes[:, frame, :, 2:] * (WIDTH, HEIGHT)
    )
