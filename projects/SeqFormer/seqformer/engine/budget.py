"""Ends a training when a given time has passed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from detectron2.engine import HookBase

__all__ = ["TimeBudget"]


class TimeBudget(HookBase):
    """Sets the last step of a training so that it ends on time, again after every step.

    Register it before hooks that save a checkpoint at the end. The training cannot have more steps than its
    SOLVER.MAX_ITER, which should therefore be too high rather than too low.

    Args:
        seconds: time from the first step to the last.
        end_at: called with the number of steps.
        clock: returns seconds.
    """

    def __init__(
        self, seconds: float, end_at: Callable[[int], Any], clock: Callable[[], float] = time.perf_counter
    ):
        self._seconds = seconds
        self._end_at = end_at
        self._clock = clock
        self._start = self._first = 0.0

    def before_train(self) -> None:
        self._start = self._clock()
        self._most = self.trainer.max_iter

    def after_step(self) -> None:
        done, now = self.trainer.iter + 1, self._clock()
        later = self.trainer.iter - self.trainer.start_iter  # steps after the first, which is slow
        if later == 0:
            self._first = now
            return
        per_step = (now - self._first) / later
        left = max(0.0, self._seconds - (now - self._start))
        self._end_at(min(self._most, done + int(left / max(per_step, 1e-6))))
