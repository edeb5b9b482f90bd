"""draw_instances: what it draws, and what it does not modify."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from seqformer.visualization import draw_instances, instance_color

GREY = 90


def scene(*boxes: tuple[int, int, int, int], size: tuple[int, int] = (240, 320)):
    """A grey frame, and one mask per (left, top, right, bottom)."""
    masks = np.zeros((len(boxes), *size), dtype=bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    return np.full((*size, 3), GREY, dtype=np.uint8), masks


def changed(drawn: np.ndarray) -> np.ndarray:
    return (drawn != GREY).any(axis=2)


def label_boxes(drawn: np.ndarray, masks: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Returns (left, top, width, height) of labels: what is drawn outside masks and outlines."""
    near = cv2.dilate(masks.any(axis=0).astype(np.uint8), np.ones((7, 7))).astype(bool)
    _, _, stats, _ = cv2.connectedComponentsWithStats((changed(drawn) & ~near).astype(np.uint8))
    return [tuple(map(int, row[:4])) for row in stats[1:]]


def test_only_masks_are_tinted():
    frame, masks = scene((100, 80, 180, 200))
    before = frame.copy()
    drawn = draw_instances(frame, masks, [3], ["person"], [0.93], opacity=0.4)
    np.testing.assert_array_equal(frame, before)
    inside = np.rint(0.6 * GREY + 0.4 * np.array(instance_color(3)))
    np.testing.assert_array_equal(drawn[120:190, 110:170], np.broadcast_to(inside, (70, 60, 3)))
    np.testing.assert_allclose(drawn[140, 100], instance_color(3), atol=20, err_msg="no outline")
    assert len(label_boxes(drawn, masks)) == 1
    elsewhere = changed(drawn)
    elsewhere[:205, 95:185] = False
    left, top, width, height = label_boxes(drawn, masks)[0]
    elsewhere[top : top + height + 4, left : left + width] = False
    assert not elsewhere.any()


def test_holes_are_not_tinted():
    frame, masks = scene((100, 80, 200, 200))
    masks[0, 110:170, 120:180] = False
    drawn = draw_instances(frame, masks, [0], ["person"], [0.9])
    assert not changed(drawn)[115:165, 125:175].any()


def test_the_higher_score_is_on_top():
    frame, masks = scene((60, 80, 160, 200), (120, 80, 220, 200))
    for scores, top in (([0.9, 0.5], 4), ([0.5, 0.9], 7)):
        drawn = draw_instances(frame, masks, [4, 7], ["person"] * 2, scores, opacity=1)
        np.testing.assert_array_equal(drawn[150, 140], instance_color(top))
        np.testing.assert_array_equal(drawn[150, 80], instance_color(4))
        np.testing.assert_array_equal(drawn[150, 200], instance_color(7))


def test_instances_without_score_are_on_top():
    frame, masks = scene((60, 80, 160, 200), (120, 80, 220, 200))
    drawn = draw_instances(frame, masks, [4, 7], ["person"] * 2, [None, 0.9], opacity=1)
    np.testing.assert_array_equal(drawn[150, 140], instance_color(4))
    widths = [
        label_boxes(draw_instances(frame, masks[:1], [4], ["person"], [score]), masks[:1])[0][2]
        for score in (None, 0.9)
    ]
    assert widths[0] < 0.8 * widths[1]


def test_labels_stay_inside_and_apart():
    corners = [(0, 0, 12, 30), (308, 0, 320, 30), (0, 215, 12, 240), (308, 215, 320, 240)]
    crowd = [(140 + 6 * i, 120, 150 + 6 * i, 200) for i in range(3)]
    frame, masks = scene(*corners, *crowd)
    drawn = draw_instances(frame, masks, range(7), ["person"] * 7, [0.9 - 0.1 * i for i in range(7)])
    apart = cv2.connectedComponents((changed(drawn) & ~masks.any(axis=0)).astype(np.uint8))[0]
    assert apart > 4
    # Every label has a visible area in its own colour.
    areas = [int((drawn == np.array(instance_color(i))).all(axis=2).sum()) for i in range(7)]
    alone = []
    for i in range(7):
        single = draw_instances(frame, masks[i : i + 1], [i], ["person"], [0.9 - 0.1 * i])
        alone.append(int((single == np.array(instance_color(i))).all(axis=2).sum()))
    for area, whole in zip(areas[:4], alone[:4], strict=True):
        assert area == pytest.approx(whole, rel=0.1)


@pytest.mark.parametrize("size", [(8, 8), (40, 500), (500, 40)])
def test_frames_smaller_than_a_label(size):
    frame, masks = scene((0, 0, size[1], size[0]), size=size)
    drawn = draw_instances(frame, masks, [0], ["a rather long class name"], [0.5])
    assert drawn.shape == frame.shape and changed(drawn).all()


def test_font_size_scales_with_the_frame():
    heights = []
    for scale in (1, 3):
        frame, masks = scene(
            *[tuple(scale * v for v in (100, 80, 180, 200))], size=(240 * scale, 320 * scale)
        )
        heights.append(label_boxes(draw_instances(frame, masks, [1], ["person"], [0.9]), masks)[0][3])
    assert heights[1] > 1.3 * heights[0]


def test_nothing_to_draw():
    frame, masks = scene((0, 0, 0, 0))
    np.testing.assert_array_equal(draw_instances(frame, masks, [0], ["person"], [0.9]), frame)
    np.testing.assert_array_equal(draw_instances(frame, masks[:0], [], [], []), frame)


def test_wrong_arguments():
    frame, masks = scene((0, 0, 9, 9))
    with pytest.raises(ValueError, match="same number"):
        draw_instances(frame, masks, [0, 1], ["person"], [0.9])
    with pytest.raises(ValueError, match="pixels"):
        draw_instances(frame[:100], masks, [0], ["person"], [0.9])


def test_colours_are_stable_and_distinct():
    assert [instance_color(i) for i in range(100)] == [instance_color(i) for i in range(100)]
    colors = np.array([instance_color(i) for i in range(200)], dtype=np.uint8)
    assert len(np.unique(colors, axis=0)) == 200
    lab = cv2.cvtColor(colors[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    distance = np.linalg.norm(lab[:, None] - lab[None], axis=2) + 1000 * np.eye(200)  # CIE 1976
    assert distance[:10, :10].min() > 25
    assert distance[:30, :30].min() > 10
