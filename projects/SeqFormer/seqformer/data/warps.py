"""Random warps of an image: perspective, rotation, shift, colour and motion blur."""

from __future__ import annotations

import cv2
import numpy as np

__all__ = ["Warp"]

_PERSPECTIVE = 0.08  # largest inward shift of a corner, as a fraction of the image's sides
_SHIFT = 0.1  # as a fraction of the image's sides
_ANGLE = 20.0  # degrees
_BRIGHTNESS = 40  # grey levels
_HUE_AND_SATURATION = 5  # of 256
_BLUR_PROBABILITY = 0.25
_BLUR_LENGTHS = (9, 11)  # pixels


class Warp:
    """One random view of an image, as in the original recipe.

    The corners move inwards by up to 8 % of the sides (perspective). Then the image rotates by up to 20
    degrees about its centre and shifts by up to 10 % of its sides; uncovered pixels are black. Brightness
    changes by up to 40 grey levels, hue and saturation by up to 5 of 256. A quarter of the views are blurred
    along a line of 9 or 11 pixels. Random numbers come from NumPy's global generator.

    Args:
        height, width: size of the image in pixels.
        bgr: whether the channel order is blue, green, red.

    Attributes:
        matrix: (3, 3), maps pixels of the image to pixels of the view, xy.
    """

    def __init__(self, height: int, width: int, bgr: bool = False):
        self.size = (width, height)
        self.bgr = bgr
        sides = np.array([width, height], dtype=np.float32)
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=np.float32)
        inwards = np.random.uniform(0, _PERSPECTIVE, (4, 2)).astype(np.float32) * (1 - 2 * corners)
        perspective = cv2.getPerspectiveTransform((corners + inwards) * sides, corners * sides)
        center = (width / 2, height / 2)
        motion = np.eye(3)
        motion[:2] = cv2.getRotationMatrix2D(center, np.random.uniform(-_ANGLE, _ANGLE), 1.0)
        motion[:2, 2] += np.random.uniform(-_SHIFT, _SHIFT, 2) * sides
        self.matrix = motion @ perspective
        self.hue, self.saturation = np.random.randint(-_HUE_AND_SATURATION, _HUE_AND_SATURATION + 1, 2)
        self.brightness = np.random.randint(-_BRIGHTNESS, _BRIGHTNESS + 1)
        blurred = np.random.uniform() < _BLUR_PROBABILITY
        self.blur = (
            _line(int(np.random.choice(_BLUR_LENGTHS)), np.random.uniform(0, 180)) if blurred else None
        )

    def image(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 -> the view, of the same size."""
        warped = cv2.warpPerspective(image, self.matrix, self.size, flags=cv2.INTER_LINEAR)
        to_hsv, from_hsv = (
            (cv2.COLOR_BGR2HSV_FULL, cv2.COLOR_HSV2BGR_FULL)
            if self.bgr
            else (cv2.COLOR_RGB2HSV_FULL, cv2.COLOR_HSV2RGB_FULL)
        )
        hue, saturation, value = cv2.split(cv2.cvtColor(warped, to_hsv))
        levels = np.arange(256)
        hue = cv2.LUT(hue, ((levels + self.hue) % 256).astype(np.uint8))
        saturation = cv2.LUT(saturation, (levels + self.saturation).clip(0, 255).astype(np.uint8))
        value = cv2.LUT(value, (levels + self.brightness).clip(0, 255).astype(np.uint8))
        coloured = cv2.cvtColor(cv2.merge((hue, saturation, value)), from_hsv)
        return coloured if self.blur is None else cv2.filter2D(coloured, -1, self.blur)

    def masks(self, masks: np.ndarray) -> np.ndarray:
        """(N, H, W) bool -> (N, H, W) bool, N at most 32."""
        if not len(masks):
            return masks
        # Pack eight masks into each of up to four bytes per pixel, to warp them all at once.
        packed = np.ascontiguousarray(np.packbits(masks, axis=0).transpose(1, 2, 0))
        warped = np.asarray(
            cv2.warpPerspective(packed, self.matrix, self.size, flags=cv2.INTER_NEAREST), dtype=np.uint8
        )
        warped = warped.reshape(packed.shape).transpose(2, 0, 1)
        return np.unpackbits(warped, axis=0, count=len(masks)).astype(bool)


def _line(length: int, angle: float) -> np.ndarray:
    """Returns a blur kernel (length, length): a line through the centre at ``angle`` degrees, with sum 1."""
    kernel = np.zeros((length, length), dtype=np.float32)
    kernel[length // 2] = 1
    turn = cv2.getRotationMatrix2D((length // 2, length // 2), angle, 1.0)
    line = cv2.warpAffine(kernel, turn, (length, length))
    return line / line.sum()
