"""Whole trainings as commands: killed and resumed, in two processes, bad input, several test sets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from seqformer.data.toy import make_toy_dataset

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "toy" / "seqformer_toy.yaml"
TRAIN = [str(ROOT / "train_net.py"), "--config-file", str(CONFIG)]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
STEPS = 14
TIMEOUT = 300  # seconds; a run takes about ten

pytestmark = pytest.mark.slow


class Toy(NamedTuple):
    train: Path
    val: Path
    frames: Path

    def options(self, output: Path, *more: str) -> list[str]:
        """Two datasets, drawn two to one, and a new line of metrics with every step."""
        return [
            *("DATASETS.TRAIN", f"('ytvis:{self.train}:{self.frames}', 'ytvis:{self.val}:{self.frames}')"),
            *("DATASETS.TRAIN_RATIOS", "(2, 1)", "DATASETS.TEST", "()", "OUTPUT_DIR", str(output)),
            *("INPUT.MIN_SIZE_TRAIN", "(48,)", "INPUT.SAMPLING_FRAME_NUM", "2", "LOG_PERIOD", "1"),
            *("SOLVER.MAX_ITER", str(STEPS)),
            *more,
        ]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    root = tmp_path_factory.mktemp("toy_data")
    return Toy(*make_toy_dataset(root, num_train=5, num_val=2, length=4, size=(48, 64)))


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=TIMEOUT, env=environment()
    )
    assert done.returncode == 0, done.stderr
    return done


def losses(output: Path) -> dict[int, list[dict[str, float]]]:
    """Losses of every step; a step that was done again has several."""
    found = defaultdict(list)
    for line in (output / "metrics.json").read_text().splitlines():
        metrics = json.loads(line)
        if "total_loss" in metrics:
            found[metrics["iteration"]].append({n: v for n, v in metrics.items() if "loss" in n})
    return found


def kill_at(step: int, arguments: list[str]) -> None:
    """Runs a training that SIGKILL ends after a step, at whatever it is doing then."""
    training = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env=environment(),
    )  # fmt: skip
    for line in training.stdout:
        if f"iter: {step} " in line:
            training.kill()
            break
    training.stdout.close()
    assert training.wait(timeout=TIMEOUT) == -9


def test_killed_training_resumes_to_the_same_losses(toy: Toy, tmp_path: Path) -> None:
    more = [
        *(
            "MODEL.SeqFormer.DROPOUT",
            "0.1",
            "INPUT.MIN_SIZE_TRAIN",
            "(40, 48)",
            "DATALOADER.NUM_WORKERS",
            "1",
        ),
        *("INPUT.AUGMENTATIONS", "['brightness', 'contrast', 'saturation', 'rotation']"),
        *("SOLVER.EMA.ENABLED", "True", "SOLVER.EMA.DECAY", "0.9", "SOLVER.CHECKPOINT_PERIOD", "4"),
    ]
    run(*TRAIN, *toy.options(tmp_path / "whole", *more))
    options = toy.options(tmp_path / "killed", *more)
    kill_at(5, [*TRAIN, *options])
    said = run(*TRAIN, "--resume", *options).stdout
    assert "Starting training from iteration 4\n" in said or "Starting training from iteration 8\n" in said

    whole, killed = losses(tmp_path / "whole"), losses(tmp_path / "killed")
    assert sorted(whole) == sorted(killed) == list(range(STEPS))
    assert len({step[0]["total_loss"] for step in whole.values()}) == STEPS
    assert max(len(steps) for steps in killed.values()) == 2, "no step was done again"
    for step, expected in whole.items():
        for found in killed[step]:
            assert found == expected[0], f"step {step}"
    final = [
        torch.load(tmp_path / name / "model_final.pth", weights_only=True) for name in ("whole", "killed")
    ]
    for weights in (lambda file: file["model"], lambda file: file["trainer"]["average"]):
        first, second = map(weights, final)
        assert all(first[name].equal(second[name]) for name in first)
    averaged = final[0]["trainer"]["average"]
    assert any(not averaged[f"module.{name}"].equal(tensor) for name, tensor in final[0]["model"].items())


def test_two_processes_train_as_one_with_the_whole_batch(toy: Toy, tmp_path: Path) -> None:
    # Statistics of a batch would differ, hence frozen norms.
    # And AdamW would turn the sign of a gradient that is nearly zero into a step of full length.
    more = ["SOLVER.IMS_PER_BATCH", "4", "MODEL.RESNETS.NORM", "FrozenBN", "SOLVER.MAX_ITER", "5"]
    more += ["SOLVER.OPTIMIZER", "SGD", "SOLVER.BASE_LR", "0.01"]
    run(*TRAIN, *toy.options(tmp_path / "one", *more))
    run(*TORCHRUN, "2", *TRAIN, *toy.options(tmp_path / "two", *more))
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert sorted(one) == sorted(two) == list(range(5))
    for step in one:
        assert two[step][0] == pytest.approx(one[step][0], rel=1e-4, abs=1e-4), f"step {step}"
    assert abs(one[0][0]["total_loss"] - one[4][0]["total_loss"]) > 1, "nothing was learnt"


def test_interrupted_processes_stop_after_the_same_step(toy: Toy, tmp_path: Path) -> None:
    """SIGTERM as a cluster sends it before it ends a job: torchrun hands it on."""
    options = toy.options(tmp_path, "SOLVER.MAX_ITER", "100000")
    training = subprocess.Popen(
        [sys.executable, *TORCHRUN, "2", *TRAIN, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=environment(),
    )  # fmt: skip
    for line in training.stdout:
        if "iter: 2 " in line:
            training.send_signal(signal.SIGTERM)
            break
    _, errors = training.communicate(timeout=TIMEOUT)
    assert errors.count("Stopping after this step") == 1
    assert errors.count("interrupted; --resume continues from the last checkpoint") == 2, errors
    name = (tmp_path / "last_checkpoint").read_text()
    checkpoint = torch.load(tmp_path / name, weights_only=True)
    assert checkpoint["iteration"] == max(losses(tmp_path))


def test_bad_input_in_two_processes(toy: Toy, tmp_path: Path) -> None:
    options = toy.options(tmp_path, "SOLVER.IMS_PER_BATCH", "3")
    done = subprocess.run(
        [sys.executable, *TORCHRUN, "2", *TRAIN, *options], capture_output=True, text=True, timeout=TIMEOUT,
        env=environment(),
    )  # fmt: skip
    assert done.returncode != 0
    line = "error: SOLVER.IMS_PER_BATCH 3 must be a multiple of the number of processes, 2"
    assert line in done.stderr.splitlines()
    assert "exitcode  : 2" in done.stderr, "what torchrun says of its processes"


@pytest.fixture(scope="module")
def averaged(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A training with averaged weights and two test sets that has ended, and its options."""
    output = tmp_path_factory.mktemp("averaged")
    options = toy.options(
        output,
        *("DATASETS.TEST", f"('ytvis:{toy.val}:{toy.frames}', 'ytvis:{toy.train}:{toy.frames}')"),
        *("SOLVER.EMA.ENABLED", "True", "SOLVER.EMA.DECAY", "0.5", "SOLVER.MAX_ITER", "6"),
        *("TEST.EVAL_PERIOD", "3", "MODEL.SeqFormer.APPLY_CLS_THRES", "0.0", "INPUT.MIN_SIZE_TEST", "48"),
        *("SOLVER.AMP.ENABLED", "True", "MODEL.SeqFormer.GRADIENT_CHECKPOINTING", "True"),
    )
    run(*TRAIN, *options)
    return output, options


def results(output: Path) -> dict[str, list]:
    """Results by test set."""
    return {
        path.parent.name: json.loads(path.read_text()) for path in output.glob("inference/*/results.json")
    }


def test_averaged_weights_are_evaluated_on_every_test_set(
    averaged: tuple[Path, list[str]], tmp_path: Path
) -> None:
    output, options = averaged
    expected = results(output)
    assert sorted(len({r["video_id"] for r in found}) for found in expected.values()) == [2, 5]
    weights = ["MODEL.WEIGHTS", str(output / "model_final.pth")]
    for average in (True, False):
        folder = tmp_path / str(average)
        more = ["OUTPUT_DIR", str(folder), "SOLVER.EMA.ENABLED", str(average)]
        said = run(*TRAIN, "--eval-only", *options, *weights, *more).stdout
        found = results(folder)
        assert found.keys() == expected.keys()
        for name, videos in found.items():
            assert f"Evaluation results for {name} " in said
            assert videos and (videos == expected[name]) == average


def test_best_weights_and_curves_are_kept(averaged: tuple[Path, list[str]]) -> None:
    output, _ = averaged
    best = json.loads((output / "model_best.json").read_text())
    assert best["metric"].endswith("val/segm/AP") and best["iteration"] in (2, 6)
    weights = torch.load(output / "model_best.pth", weights_only=True)["model"]
    assert weights.keys() == torch.load(output / "model_final.pth", weights_only=True)["model"].keys()
    events = EventAccumulator(str(output)).Reload()
    assert len(events.Scalars("total_loss")) == 6
    assert {best["metric"]} < set(events.Tags()["scalars"])
