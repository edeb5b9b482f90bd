"""Random numbers, a sine and smooth curves that are identical on every machine.

They use only additions, multiplications and divisions of Python floats, which IEEE 754 defines to the last
bit, and the one method of the standard library's generator with a guaranteed sequence.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

__all__ = ["Curve", "Dice", "sine"]

T = TypeVar("T")

# Taylor coefficients of sin(2 pi x): (2 pi)^n / n! with alternating signs, n = 1, 3, ..., 13.
_SINE = (
    6.283185307179586,
    -41.341702240399755,
    81.60524927607504,
    -76.70585975306136,
    42.058693944897655,
    -15.094642576822986,
    3.8199525848482825,
)


def sine(turns: float) -> float:
    """Returns the sine of an angle in turns, accurate to 1e-6. The cosine is ``sine(turns + 0.25)``."""
    x = turns - float(round(turns))  # -0.5 to 0.5
    if x > 0.25:
        x = 0.5 - x
    elif x < -0.25:
        x = -0.5 - x
    square, result = x * x, 0.0
    for coefficient in reversed(_SINE):
        result = result * square + coefficient
    return result * x


class Dice:
    """Random choices from a seed; Python guarantees the sequence of ``random.Random.random``."""

    def __init__(self, seed: str):
        self._random = random.Random(seed)

    def uniform(self, low: float, high: float) -> float:
        """Returns a number in [low, high)."""
        return low + (high - low) * self._random.random()

    def chance(self, probability: float) -> bool:
        """Returns True with that probability."""
        return self._random.random() < probability

    def integer(self, low: int, high: int) -> int:
        """Returns an integer from low to high, both included."""
        return low + int(self._random.random() * (high - low + 1))

    def choice(self, items: Sequence[T]) -> T:
        """Returns one of the items."""
        return items[self.integer(0, len(items) - 1)]


class Curve:
    """A smooth function of time: a uniform cubic B-spline.

    Args:
        points: control values, at least 4; time 0 is at the second one.
        step: frames between two control values.
    """

    def __init__(self, points: Sequence[float], step: float):
        self.points = list(points)
        self.step = step

    @classmethod
    def random(cls, dice: Dice, length: int, step: float, low: float, high: float) -> Curve:
        """Returns a curve for ``length`` frames, with random control values in [low, high)."""
        return cls([dice.uniform(low, high) for _ in range(cls.count(length, step))], step)

    @staticmethod
    def count(length: int, step: float) -> int:
        """Returns the number of control values needed for ``length`` frames."""
        return int(length / step) + 4

    def __call__(self, time: float) -> float:
        """Returns the value at a time in frames. Outside, the first and last pieces are extrapolated."""
        place = time / self.step
        first = min(max(int(place), 0), len(self.points) - 4)
        u = place - first
        a, b, c, d = self.points[first : first + 4]
        v = 1.0 - u
        return (
            a * v * v * v
            + b * (4.0 - 6.0 * u * u + 3.0 * u * u * u)
            + c * (4.0 - 6.0 * v * v + 3.0 * v * v * v)
            + d * u * u * u
        ) / 6.0
