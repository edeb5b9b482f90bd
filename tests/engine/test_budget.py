"""A training that ends when its time is over."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from detectron2.engine.train_loop import TrainerBase

from seqformer.config import load_config
from seqformer.data import resolve_datasets
from seqformer.data.toy import make_toy_dataset
from seqformer.engine import TimeBudget, Trainer
from seqformer.evaluation import YTVISEvaluator

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "toy" / "seqformer_toy.yaml"


class Clock(TrainerBase):
    """A trainer whose steps take known times."""

    def __init__(self, seconds: list[float], budget: float):
        super().__init__()
        self.now = 0.0
        self.times = seconds
        self.ends: list[int] = []
        self.register_hooks([TimeBudget(budget, self.ends.append, clock=lambda: self.now)])

    def run_step(self) -> None:
        self.now += self.times[self.iter]


def test_the_last_step_follows_the_time_of_steps_after_the_first() -> None:
    trainer = Clock([10, 1, 1, 4, 4], budget=20)
    trainer.train(0, 5)
    # After n steps: n, and what fits into the time that is left.
    assert trainer.ends == [min(5, n) for n in (2 + 9, 3 + 8, 4 + 2, 5 + 0)]


def test_there_is_never_a_step_more_than_max_iter_and_never_one_less_than_done() -> None:
    trainer = Clock([1] * 6, budget=3.5)
    trainer.train(0, 6)
    assert trainer.ends == [3, 3, 4, 5, 6]


def test_a_trainer_ends_on_time_with_all_that_the_end_brings(tmp_path: Path) -> None:
    train, val, frames = make_toy_dataset(tmp_path / "toy", num_train=2, num_val=1, length=3, size=(48, 64))
    cfg = load_config(
        CONFIG,
        [
            *("INPUT.MIN_SIZE_TRAIN", "(48,)", "INPUT.MIN_SIZE_TEST", "48", "INPUT.SAMPLING_FRAME_NUM", "2"),
            *("SOLVER.MAX_ITER", "100000", "SOLVER.CHECKPOINT_PERIOD", "100000"),
            *("SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR", "SOLVER.WARMUP_ITERS", "1"),
            *("DATALOADER.NUM_WORKERS", "0", "OUTPUT_DIR", str(tmp_path / "out")),
        ],
    )
    cfg.DATASETS.TRAIN = resolve_datasets([f"ytvis:{train}:{frames}"])
    cfg.DATASETS.TEST = resolve_datasets([f"ytvis:{val}:{frames}"])
    cfg.freeze()
    (tmp_path / "out").mkdir()
    trainer = Trainer(cfg, lambda name: YTVISEvaluator(name, tmp_path / "evaluated"), seconds=3)
    trainer.resume_or_load(resume=False)
    began = time.perf_counter()
    trainer.train()
    assert time.perf_counter() - began < 60
    assert 1 < trainer.max_iter < 100000
    assert (tmp_path / "evaluated" / "results.json").is_file()
    checkpoint = torch.load(tmp_path / "out" / "model_final.pth", weights_only=False)
    assert checkpoint["iteration"] == trainer.max_iter - 1
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)
