"""The hooks: the best checkpoint, also across restarts, and the steps at which metrics are written."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from detectron2.engine.hooks import EvalHook
from detectron2.engine.train_loop import TrainerBase
from detectron2.utils.events import EventWriter
from torch import nn

from seqformer.checkpoints import SeqFormerCheckpointer
from seqformer.engine import BestCheckpoint, MetricsWriter

SCORES = {1: 10.0, 3: 30.0, 5: 20.0, 7: math.nan, 9: 25.0}  # score by the step before the evaluation


class Trainer(TrainerBase):
    """A trainer whose weight is the number of steps done. It evaluates every second step and at the end."""

    def __init__(self, folder: Path, scores: dict[int, float]):
        super().__init__()
        self.model = nn.Linear(1, 1)
        checkpointer = SeqFormerCheckpointer(self.model, str(folder), resumable=False)
        evaluate = EvalHook(2, lambda: {"segm": {"AP": scores[2 * ((self.iter - 1) // 2) + 1]}})
        self.register_hooks([evaluate, BestCheckpoint(2, checkpointer, "segm/AP")])

    def run_step(self) -> None:
        nn.init.constant_(self.model.weight, self.iter + 1)


def best(folder: Path) -> tuple[float, float]:
    """Returns weight and value of the best checkpoint."""
    weight = torch.load(folder / "model_best.pth", weights_only=True)["model"]["weight"].item()
    return weight, json.loads((folder / "model_best.json").read_text())["value"]


def test_the_best_of_all_evaluations(tmp_path: Path) -> None:
    Trainer(tmp_path, SCORES).train(0, 10)
    assert best(tmp_path) == (4, 30.0)


def test_the_last_evaluation_counts(tmp_path: Path) -> None:
    Trainer(tmp_path, SCORES | {9: 40.0}).train(0, 10)
    assert best(tmp_path) == (10, 40.0)


def test_a_resumed_training_knows_the_best_so_far(tmp_path: Path) -> None:
    Trainer(tmp_path, SCORES).train(0, 5)
    Trainer(tmp_path, SCORES).train(5, 10)
    assert best(tmp_path) == (4, 30.0)


def test_evaluations_that_will_be_repeated_do_not_count(tmp_path: Path) -> None:
    Trainer(tmp_path, SCORES).train(0, 5)
    # Resume from a checkpoint before the best evaluation, with other data.
    Trainer(tmp_path, SCORES | {3: 5.0}).train(2, 10)
    assert best(tmp_path) == (10, 25.0)


def test_a_new_training_forgets_the_old_one(tmp_path: Path) -> None:
    Trainer(tmp_path, SCORES).train(0, 10)
    Trainer(tmp_path, {step: score / 10 for step, score in SCORES.items()}).train(0, 10)
    assert best(tmp_path) == (4, 3.0)


class Steps(EventWriter):
    """Records the steps after which it writes."""

    def __init__(self, trainer: TrainerBase):
        self.trainer = trainer
        self.written: list[int] = []

    def write(self) -> None:
        self.written.append(self.trainer.iter)


@pytest.mark.parametrize(
    ("start", "period", "written"),
    [(0, 4, [0, 3, 7, 9, 10]), (5, 4, [5, 7, 9, 10]), (3, 4, [3, 7, 9, 10]), (8, 1, [8, 9, 10])],
)
def test_metrics_are_written_from_the_first_step_on(start: int, period: int, written: list[int]) -> None:
    """Once for each of these: the first step, every period, the last step, and after the training."""
    trainer = TrainerBase()
    trainer.run_step = lambda: None
    steps = Steps(trainer)
    trainer.register_hooks([MetricsWriter([steps], period)])
    trainer.train(start, 10)
    assert steps.written == written
