"""Hooks of the trainer."""

from __future__ import annotations

import json
from pathlib import Path

from detectron2.engine.hooks import BestCheckpointer, PeriodicWriter

from seqformer.checkpoints import SeqFormerCheckpointer
from seqformer.formats.files import write_json

__all__ = ["BestCheckpoint", "MetricsWriter"]


class BestCheckpoint(BestCheckpointer):
    """Detectron2's hook, which also looks at the last evaluation and remembers the best one over restarts.

    Beside ``model_best.pth`` it writes ``model_best.json`` with metric, value and iteration. It follows the
    hook that evaluates.

    Args:
        period: of the evaluations, steps.
        checkpointer: saves the weights that are evaluated; not resumable, for it holds nothing else.
        metric: what is compared, such as "segm/AP"; more is better.
    """

    def __init__(self, period: int, checkpointer: SeqFormerCheckpointer, metric: str):
        super().__init__(period, checkpointer, metric, mode="max")
        self._record = Path(checkpointer.save_dir, f"{self._file_prefix}.json")

    def before_train(self) -> None:
        """Reads what an interrupted training found."""
        if self.trainer.start_iter and self._record.is_file():
            best = json.loads(self._record.read_text(encoding="utf-8"))
            # Evaluations after the step that training goes on from come again.
            if best["metric"] == self._val_metric and best["iteration"] < self.trainer.start_iter:
                self.best_metric, self.best_iter = best["value"], best["iteration"]

    def after_train(self) -> None:
        """The last evaluation comes after the last step."""
        if self.trainer.iter >= self.trainer.max_iter:
            self._best_checking()

    def _best_checking(self) -> None:
        before = self.best_iter
        super()._best_checking()
        if self.best_iter != before:
            best = {"metric": self._val_metric, "value": self.best_metric, "iteration": self.best_iter}
            write_json(self._record, best)


class MetricsWriter(PeriodicWriter):
    """Detectron2's hook, which also writes after the first step: it shows that the training runs, and an ETA.

    Args:
        writers: what metrics are written with.
        period: steps from one line of metrics to the next.
    """

    def after_step(self) -> None:
        if self.trainer.iter == self.trainer.start_iter:
            for writer in self._writers:
                writer.write()
        else:
            super().after_step()
