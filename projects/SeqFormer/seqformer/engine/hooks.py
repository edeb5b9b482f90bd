"""Hooks of the trainer."""

from __future__ import annotations

import json
from pathlib import Path

from detectron2.engine.hooks import BestCheckpointer, PeriodicWriter

from seqformer.checkpoints import SeqFormerCheckpointer
from seqformer.engine.writers import RunWriter
from seqformer.formats.files import write_json

__all__ = ["BestCheckpoint", "MetricsWriter"]


class BestCheckpoint(BestCheckpointer):
    """Saves the best checkpoint, as in Detectron2, including the last evaluation and across restarts.

    It writes ``model_best.pth``, and ``model_best.json`` with metric, value and iteration. Register it after
    the hook that evaluates.

    Args:
        period: steps between evaluations.
        checkpointer: saves the evaluated weights. It must not be resumable, since it saves nothing else.
        metric: the metric to compare, such as "segm/AP"; higher is better.
    """

    def __init__(self, period: int, checkpointer: SeqFormerCheckpointer, metric: str):
        super().__init__(period, checkpointer, metric, mode="max")
        self._record = Path(checkpointer.save_dir, f"{self._file_prefix}.json")

    def before_train(self) -> None:
        """Reads the best result of an interrupted training."""
        if self.trainer.start_iter and self._record.is_file():
            best = json.loads(self._record.read_text(encoding="utf-8"))
            # Evaluations after the step from which training resumes will be repeated.
            if best["metric"] == self._val_metric and best["iteration"] < self.trainer.start_iter:
                self.best_metric, self.best_iter = best["value"], best["iteration"]

    def after_train(self) -> None:
        """Checks the last evaluation, which runs after the last step."""
        if self.trainer.iter >= self.trainer.max_iter:
            self._best_checking()

    def _best_checking(self) -> None:
        before = self.best_iter
        super()._best_checking()
        if self.best_iter != before:
            best = {"metric": self._val_metric, "value": self.best_metric, "iteration": self.best_iter}
            write_json(self._record, best)


class MetricsWriter(PeriodicWriter):
    """Writes metrics, as in Detectron2, and also after the first step, to show early progress and an ETA.

    Args:
        writers: writers of the metrics.
        period: steps between two lines of metrics.
    """

    def before_train(self) -> None:
        """Starts the runs of experiment trackers, which continue if the training is resumed."""
        for writer in self._writers:
            if isinstance(writer, RunWriter):
                writer.start(resumed=self.trainer.start_iter > 0)

    def after_step(self) -> None:
        if self.trainer.iter == self.trainer.start_iter:
            for writer in self._writers:
                writer.write()
        else:
            super().after_step()
