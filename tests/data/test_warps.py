from __future__ import annotations

import cv2
import numpy as np
import pytest

from seqformer.data.warps import Warp, _line


def test_warps_stay_within_their_bounds() -> None:
    height, width = 400, 600
    corners = np.array([[[0, 0], [width, 0], [width, height], [0, height]]], dtype=np.float64)
    shifts, blurs, lengths, angles = [], 0, set(), []
    for _ in range(300):
        warp = Warp(height, width)
        center = np.array([[[width / 2, height / 2]]])
        # Position of the view's centre in the image, from shift and perspective together.
        source = cv2.perspectiveTransform(corners, np.linalg.inv(warp.matrix))
        moved = cv2.perspectiveTransform(center, warp.matrix)[0, 0] - center[0, 0]
        shifts.append(np.abs(moved) / (width, height))
        side = source[0, 1] - source[0, 0]
        angles.append(np.degrees(np.arctan2(side[1], side[0])))
        assert abs(warp.brightness) <= 40 and abs(warp.hue) <= 5 and abs(warp.saturation) <= 5
        blurs += warp.blur is not None
        if warp.blur is not None:
            lengths.add(len(warp.blur))
            assert warp.blur.sum() == pytest.approx(1, rel=1e-5)
    assert np.max(shifts) < 0.1 + 0.12  # perspective also moves the centre
    assert np.max(np.abs(angles)) < 20 + 8 and np.max(angles) > 15 and np.min(angles) < -15
    assert lengths == {9, 11}
    assert 50 < blurs < 100


def test_a_warp_without_perspective_rotates_and_shifts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seqformer.data.warps._PERSPECTIVE", 0.0)
    for _ in range(100):
        warp = Warp(300, 500)
        a, b = warp.matrix[0, 0], warp.matrix[0, 1]
        assert warp.matrix[2] == pytest.approx([0, 0, 1], abs=1e-9)
        assert a**2 + b**2 == pytest.approx(1, abs=1e-6)
        assert abs(np.degrees(np.arctan2(b, a))) <= 20
        center = warp.matrix @ (250, 150, 1)
        assert abs(center[0] - 250) <= 50 + 1e-6 and abs(center[1] - 150) <= 30 + 1e-6


@pytest.mark.parametrize("bgr", [False, True])
def test_colours_change_as_specified(bgr: bool) -> None:
    warp = Warp(20, 20, bgr)
    warp.matrix, warp.blur = np.eye(3), None
    warp.hue, warp.saturation, warp.brightness = 0, 0, 30
    red = np.zeros((20, 20, 3), dtype=np.uint8)
    red[..., 2 if bgr else 0] = 180
    changed = warp.image(red)
    assert (changed[..., 2 if bgr else 0] == 210).all() and changed.sum() == 210 * 400
    warp.hue = 5  # of 256, from red towards yellow
    green = warp.image(red)[..., 1]
    assert (green > 10).all() and (warp.image(red)[..., 0 if bgr else 2] == 0).all()


def test_blur_runs_along_a_line() -> None:
    warp = Warp(41, 41)
    warp.matrix, warp.blur = np.eye(3), _line(9, 0.0)
    warp.hue = warp.saturation = warp.brightness = 0
    dot = np.zeros((41, 41, 3), dtype=np.uint8)
    dot[20, 20] = 252
    rows, columns = np.nonzero(warp.image(dot)[..., 0])
    assert set(rows) == {20} and columns.tolist() == list(range(16, 25))
