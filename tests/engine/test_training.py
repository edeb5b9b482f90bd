"""The training command: killed and resumed, in two processes, with bad input, with several test sets."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from seqformer.data.toy import make_toy_dataset

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "toy" / "seqformer_toy.yaml"
PYTHON = Path(sys.executable).resolve()
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
        """Returns options for two datasets, mixed two to one, and a line of metrics for every step."""
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
    """Returns the losses of every step; repeated steps have several."""
    steps = defaultdict(list)
    for line in (output / "metrics.json").read_text().splitlines():
        metrics = json.loads(line)
        if "total_loss" in metrics:
            steps[metrics["iteration"]].append({n: v for n, v in metrics.items() if "loss" in n})
    return steps


def kill_at(step: int, arguments: list[str]) -> None:
    """Runs a training and kills it with SIGKILL at a random moment after a step."""
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
        for repeated in killed[step]:
            assert repeated == expected[0], f"step {step}"
    final = [
        torch.load(tmp_path / name / "model_final.pth", weights_only=True) for name in ("whole", "killed")
    ]
    for weights in (lambda file: file["model"], lambda file: file["trainer"]["average"]):
        first, second = map(weights, final)
        assert all(first[name].equal(second[name]) for name in first)
    averaged = final[0]["trainer"]["average"]
    assert any(not averaged[f"module.{name}"].equal(tensor) for name, tensor in final[0]["model"].items())


def test_two_processes_train_as_one_with_the_whole_batch(toy: Toy, tmp_path: Path) -> None:
    # Norms are frozen, since batch statistics would differ.
    # AdamW would turn the sign of a gradient that is nearly zero into a step of full length.
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
    """torchrun passes on SIGTERM, which clusters send before they end a job."""
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
    assert errors.count("interrupted; continue from the last checkpoint with --resume") == 2, errors
    name = (tmp_path / "last_checkpoint").read_text()
    checkpoint = torch.load(tmp_path / name, weights_only=True)
    assert checkpoint["iteration"] == max(losses(tmp_path))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no /proc and no sigwaitinfo")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_every_process_of_a_job(toy: Toy, tmp_path: Path, number: int) -> None:
    """As `scancel` and systemd send it. Data-loading processes go on until the training has stopped."""
    options = toy.options(tmp_path, "SOLVER.MAX_ITER", "100000", "DATALOADER.NUM_WORKERS", "2")
    training = subprocess.Popen(
        [sys.executable, *TRAIN, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(),
    )  # fmt: skip
    workers: list[str] = []
    for line in training.stdout:
        if "iter: 2 " in line:
            children = Path(f"/proc/{training.pid}/task/{training.pid}/children").read_text().split()
            workers = [child for child in children if Path(f"/proc/{child}/exe").resolve() == PYTHON]
            for process in (*workers, training.pid):
                os.kill(int(process), number)
            break
    assert len(workers) == 2
    _, errors = training.communicate(timeout=TIMEOUT)
    assert training.returncode == 130, errors
    assert errors.count("Stopping after this step") == 1, errors
    name = (tmp_path / "last_checkpoint").read_text()
    assert torch.load(tmp_path / name, weights_only=True)["iteration"] == max(losses(tmp_path))
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


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
    """A finished training with averaged weights and two test sets, and its options."""
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
    """Returns the results by test set."""
    return {
        path.parent.name: json.loads(path.read_text()) for path in output.glob("inference/*/results.json")
    }


def test_averaged_weights_are_evaluated_on_every_test_set(
    averaged: tuple[Path, list[str]], tmp_path: Path
) -> None:
    output, options = averaged
    expected = results(output)
    assert sorted(len({r["video_id"] for r in entries}) for entries in expected.values()) == [2, 5]
    weights = ["MODEL.WEIGHTS", str(output / "model_final.pth")]
    for average in (True, False):
        folder = tmp_path / str(average)
        more = ["OUTPUT_DIR", str(folder), "SOLVER.EMA.ENABLED", str(average)]
        said = run(*TRAIN, "--eval-only", *options, *weights, *more).stdout
        actual = results(folder)
        assert actual.keys() == expected.keys()
        for name, videos in actual.items():
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


def test_diverged_training_says_so_and_resumes_from_finite_losses(toy: Toy, tmp_path: Path) -> None:
    options = toy.options(tmp_path, "SOLVER.CHECKPOINT_PERIOD", "1", "SOLVER.WARMUP_ITERS", "0")
    run(*TRAIN, *options, "SOLVER.MAX_ITER", "3")
    done = subprocess.run(
        [sys.executable, *TRAIN, "--resume", *options, "SOLVER.BASE_LR", "1e30"], capture_output=True,
        text=True, timeout=TIMEOUT, env=environment(),
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    found = re.match(
        r"error: iteration (\d+): .* not finite.* \(video \d+: \S+\.jpg, .*\); lower SOLVER\.BASE_LR, "
        r"which is 1e\+30, and continue from (model_\d+\.pth) with --resume",
        line,
    )
    assert found, line
    name = (tmp_path / "last_checkpoint").read_text()
    assert name == found[2] and int(name[6:13]) < int(found[1]) - 1
    first = torch.load(tmp_path / name, weights_only=True)["iteration"] + 1
    run(*TRAIN, "--resume", *options, "SOLVER.BASE_LR", "1e-5")
    again = [steps[-1]["total_loss"] for step, steps in losses(tmp_path).items() if step >= first]
    assert len(again) == STEPS - first and np.isfinite(again).all()


def test_divergence_without_an_older_checkpoint(toy: Toy, tmp_path: Path) -> None:
    options = toy.options(tmp_path, "SOLVER.WARMUP_ITERS", "0", "SOLVER.BASE_LR", "1e30")
    done = subprocess.run(
        [sys.executable, *TRAIN, *options], capture_output=True, text=True, timeout=TIMEOUT, env=environment()
    )
    assert done.returncode == 2, done.stderr
    assert "start again: no checkpoint is older" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "last_checkpoint").exists()
