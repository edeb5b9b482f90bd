"""Where an instance was, and where it goes from there."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seqformer.tracking.options import MotionOptions

__all__ = ["Path"]


@dataclass
class Path:
    """Where an instance was in the last frames that show it.

    Attributes:
        points: frame, x and y of the mask's centre of mass in cells of the stride-4 grid; those of the last
            frame and of the window before it.
        mask: (h, w) probabilities in the frame of the last point.
    """

    points: list[tuple[int, float, float]] = field(default_factory=list)
    mask: Tensor | None = None

    def add(self, frame: int, probabilities: Tensor, options: MotionOptions) -> None:
        """Adds a later frame with the mask (h, w), unless too little of the instance is visible."""
        cells = (probabilities > 0.5).sum()
        if cells < options.least_cells:
            return
        total = probabilities.sum()
        height, width = probabilities.shape
        x = (probabilities.sum(0) @ torch.arange(width, device=total.device, dtype=total.dtype)) / total
        y = (probabilities.sum(1) @ torch.arange(height, device=total.device, dtype=total.dtype)) / total
        first = frame - options.window
        self.points = [p for p in self.points if p[0] >= first] + [(frame, float(x), float(y))]
        self.mask = probabilities

    def predict(self, frames: range) -> Tensor | None:
        """Masks (n, h, w) of the last mask moved on at the same velocity; None without a mask."""
        if self.mask is None:
            return None
        vx, vy = self.velocity()
        steps = [t - self.points[-1][0] for t in frames]
        return torch.stack([_shifted(self.mask, round(vx * n), round(vy * n)) for n in steps])

    def distance(self, other: Path) -> float:
        """From where this instance would be to where ``other`` begins, in extents of the larger one.

        Infinite if one of the two has no mask.
        """
        if self.mask is None or other.mask is None:
            return float("inf")
        frame, x, y = self.points[-1]
        vx, vy = self.velocity()
        begin, to_x, to_y = other.points[0]
        away = math.hypot(x + vx * (begin - frame) - to_x, y + vy * (begin - frame) - to_y)
        return away / max(_extent(self.mask), _extent(other.mask))

    def velocity(self) -> tuple[float, float]:
        """Cells per frame along x and y, by least squares; 0 if fewer than three points are known."""
        if len(self.points) < 3:
            return 0.0, 0.0
        t, x, y = np.array(self.points).T
        t = t - t.mean()
        return float(t @ x / (t @ t)), float(t @ y / (t @ t))


def _extent(mask: Tensor) -> int:
    """The longer side of the box around an instance, in cells."""
    cells = (mask > 0.5).nonzero()  # y, x
    return int((cells.amax(0) - cells.amin(0)).max()) + 1


def _shifted(mask: Tensor, dx: int, dy: int) -> Tensor:
    """(h, w) moved by whole cells; what comes from outside is zero."""
    height, width = mask.shape
    dx, dy = max(min(dx, width), -width), max(min(dy, height), -height)
    padded = F.pad(mask, (max(dx, 0), max(-dx, 0), max(dy, 0), max(-dy, 0)))
    return padded[max(-dy, 0) :, max(-dx, 0) :][:height, :width]
