"""The path of an instance: its recent positions and its velocity."""

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
    """The last positions of an instance.

    Attributes:
        points: frame, x and y of the mask's centre of mass, in cells of the stride-4 grid, for the last
            frame in which the instance is visible and the window before it.
        mask: (h, w) probabilities in the frame of the last point.
    """

    points: list[tuple[int, float, float]] = field(default_factory=list)
    mask: Tensor | None = None

    def add(self, frame: int, probabilities: Tensor, options: MotionOptions) -> None:
        """Adds the mask (h, w) of a later frame, unless it is smaller than ``options.least_cells``."""
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
        """Returns masks (n, h, w): the last mask, moved at the instance's velocity; None without a mask."""
        if self.mask is None:
            return None
        vx, vy = self.velocity()
        steps = [t - self.points[-1][0] for t in frames]
        return torch.stack([_shifted(self.mask, round(vx * n), round(vy * n)) for n in steps])

    def distance(self, other: Path) -> float:
        """Returns the distance of this instance's expected position from the start of ``other``.

        The unit is the extent of the larger of the two. Infinite if either has no mask.
        """
        if self.mask is None or other.mask is None:
            return float("inf")
        frame, x, y = self.points[-1]
        vx, vy = self.velocity()
        begin, to_x, to_y = other.points[0]
        away = math.hypot(x + vx * (begin - frame) - to_x, y + vy * (begin - frame) - to_y)
        return away / max(_extent(self.mask), _extent(other.mask))

    def velocity(self) -> tuple[float, float]:
        """Returns the velocity along x and y, in cells per frame, by least squares; 0 below three points."""
        if len(self.points) < 3:
            return 0.0, 0.0
        t, x, y = np.array(self.points).T
        t = t - t.mean()
        return float(t @ x / (t @ t)), float(t @ y / (t @ t))


def _extent(mask: Tensor) -> int:
    """Returns the longer side of the box around an instance, in cells."""
    cells = (mask > 0.5).nonzero()  # y, x
    return int((cells.amax(0) - cells.amin(0)).max()) + 1


def _shifted(mask: Tensor, dx: int, dy: int) -> Tensor:
    """Shifts a mask (h, w) by whole cells and fills with zeros."""
    height, width = mask.shape
    dx, dy = max(min(dx, width), -width), max(min(dy, height), -height)
    padded = F.pad(mask, (max(dx, 0), max(-dx, 0), max(dy, 0), max(-dy, 0)))
    return padded[max(-dy, 0) :, max(-dx, 0) :][:height, :width]
