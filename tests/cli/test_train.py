"""`seqformer train`: an interrupted, resumed and evaluated run, and bad input."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from detectron2.modeling import build_model
from originals import original_layout, released_file

from seqformer.cli.train import main
from seqformer.config import load_config
from seqformer.data.toy import make_toy_dataset
from seqformer.formats.files import locked

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "toy" / "seqformer_toy.yaml"
SMALL = ["INPUT.MIN_SIZE_TRAIN", "(48,)", "INPUT.MIN_SIZE_TEST", "48", "INPUT.SAMPLING_FRAME_NUM", "2"]
SMALL += ["MODEL.SeqFormer.APPLY_CLS_THRES", "0.0"]  # after a few steps no class is probable
TIMEOUT = 300  # seconds; a run takes a few


class Toy(NamedTuple):
    train: Path
    val: Path
    frames: Path

    def options(self, output: Path) -> list[str]:
        return [
            *("DATASETS.TRAIN", f"('ytvis:{self.train}:{self.frames}',)"),
            *("DATASETS.TEST", f"('ytvis:{self.val}:{self.frames}',)"),
            *("OUTPUT_DIR", str(output)),
            *SMALL,
        ]


def command(*arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "train_net.py"), "--config-file", str(CONFIG), *arguments]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=TIMEOUT)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    root = tmp_path_factory.mktemp("toy_data")
    return Toy(*make_toy_dataset(root, num_train=2, num_val=2, length=3, size=(48, 64)))


@pytest.fixture(scope="module")
def interrupted(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """Output folder and last step of a training run stopped with Ctrl-C."""
    output = tmp_path_factory.mktemp("training")
    training = subprocess.Popen(
        command(*toy.options(output), "SOLVER.MAX_ITER", "100000"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in training.stdout:
        if "iter: " in line:
            training.send_signal(signal.SIGINT)
            break
    remaining, errors = training.communicate(timeout=TIMEOUT)
    assert training.returncode == 130, errors
    assert "Stopping after this step" in errors
    assert "Traceback" not in remaining + errors
    assert errors.splitlines()[-1] == "interrupted; continue from the last checkpoint with --resume"
    name = (output / "last_checkpoint").read_text()
    assert (output / name).is_file()
    return output, int(name.removeprefix("model_").removesuffix(".pth"))


@pytest.fixture(scope="module")
def finished(interrupted: tuple[Path, int], toy: Toy) -> tuple[Path, int, str]:
    """The same run, resumed for three steps: folder, step before, and its output."""
    output, step = interrupted
    more = ["SOLVER.MAX_ITER", str(step + 4)]
    done = run("--resume", *toy.options(output), *more)
    assert done.returncode == 0, done.stderr
    return output, step, done.stdout


@pytest.mark.slow
def test_metrics_and_eta_are_logged_from_the_first_step(interrupted: tuple[Path, int]) -> None:
    output, _ = interrupted
    lines = [line for line in (output / "log.txt").read_text().splitlines() if " iter: " in line]
    assert re.search(r" eta: (\d+ days?, )?\d+:\d\d:\d\d  iter: 0  total_loss: ", lines[0])


@pytest.mark.slow
def test_resume_continues_after_the_last_step(finished: tuple[Path, int, str]) -> None:
    output, step, said = finished
    assert f"Starting training from iteration {step + 1}" in said
    checkpoint = torch.load(output / "model_final.pth", weights_only=False)
    assert checkpoint["iteration"] == step + 3
    assert checkpoint["trainer"]["_trainer"]["optimizer"]["state"]


@pytest.mark.slow
def test_training_ends_with_an_evaluation(finished: tuple[Path, int, str], toy: Toy) -> None:
    output, _, said = finished
    results = json.loads(next(output.glob("inference/*/results.json")).read_text())
    assert {result["video_id"] for result in results} == {1, 2}
    assert all(len(result["segmentations"]) == 3 for result in results)
    assert "| category" in said and "| triangle" in said


@pytest.mark.slow
def test_eval_only_agrees_with_the_end_of_training(
    finished: tuple[Path, int, str], toy: Toy, tmp_path: Path
) -> None:
    output, _, said = finished
    weights = ["MODEL.WEIGHTS", str(output / "model_final.pth")]
    done = run("--eval-only", *toy.options(tmp_path), *weights)
    assert done.returncode == 0, done.stderr
    before, after = (
        json.loads(next(folder.glob("inference/*/results.json")).read_text()) for folder in (output, tmp_path)
    )
    assert before == after
    assert _tables(done.stdout) == _tables(said)
    assert len(_tables(said)) == 3 + 5


@pytest.mark.slow
def test_eval_only_in_reduced_precision(finished: tuple[Path, int, str], toy: Toy, tmp_path: Path) -> None:
    output, _, _ = finished
    options = [*toy.options(tmp_path), "MODEL.WEIGHTS", str(output / "model_final.pth")]
    done = run("--eval-only", *options, "MODEL.SeqFormer.PRECISION", "int8")
    assert done.returncode == 0, done.stderr
    exact, reduced = (
        json.loads(next(folder.glob("inference/*/results.json")).read_text()) for folder in (output, tmp_path)
    )
    assert {result["video_id"] for result in reduced} == {1, 2}
    assert [result["score"] for result in reduced] != [result["score"] for result in exact]
    refused = run("--eval-only", *options, "MODEL.SeqFormer.PRECISION", "fp16")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith("error: MODEL.SeqFormer.PRECISION fp16 needs a GPU")


@pytest.mark.slow
def test_frames_outside_the_folder_have_to_be_allowed(toy: Toy, tmp_path: Path) -> None:
    content = json.loads(toy.val.read_text())
    for video in content["videos"]:
        video["file_names"] = [str(toy.frames / name) for name in video["file_names"]]
    other = toy._replace(val=tmp_path / "outside.json")
    other.val.write_text(json.dumps(content))
    done = run("--eval-only", *other.options(tmp_path / "a"))
    assert done.returncode == 2
    assert "is not in the folder of frames" in done.stderr.splitlines()[-1]
    done = run("--eval-only", "--allow-outside", *other.options(tmp_path / "b"))
    assert done.returncode == 0, done.stderr
    assert len(_tables(done.stdout)) == 3 + 5


def _tables(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_frame_ends_training_with_one_line(toy: Toy, tmp_path: Path, workers: int) -> None:
    copy = Toy(*(tmp_path / path.name for path in toy))
    shutil.copytree(toy.train.parent, tmp_path, dirs_exist_ok=True)
    for frame in (copy.frames / "train_001").iterdir():
        frame.write_bytes(frame.read_bytes()[:100])
    done = run(*copy.options(tmp_path / "out"), "DATALOADER.NUM_WORKERS", str(workers))
    assert done.returncode == 2
    assert "Traceback" not in done.stdout + done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: video 1: frame '{copy.frames}/train_001/0000")
    assert not list((tmp_path / "out").glob("*.pth"))


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("**/*.yaml")), ids=lambda path: path.stem)
def test_configs_load(path: Path) -> None:
    cfg = load_config(path)
    assert cfg.MODEL.META_ARCHITECTURE == "SeqFormer"
    assert cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE == "full_model"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config-file", "nowhere.yaml"], "no config file 'nowhere.yaml'"),
        ([], "no config file: give"),
        (["--config-file", str(CONFIG), "MODEL.SEQFORMER.LAYERS", "3"], "MODEL.SEQFORMER"),
        (["--config-file", str(CONFIG), "SOLVER.MAX_ITER"], "'SOLVER.MAX_ITER' has no value"),
        (["--config-file", str(CONFIG), "DATASETS.TEST", "('coco',)"], "no dataset 'coco'"),
        (["--config-file", str(CONFIG), "DATASETS.TEST", "('ytvis:a.json:b',)"], "no file 'a.json'"),
        (
            ["--config-file", str(CONFIG), "--eval-only", "DATASETS.TEST", "()"],
            "--eval-only needs datasets",
        ),
        (["--config-file", str(CONFIG), "--num-gpus", "999"], "--num-gpus 999, but there are"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    said = capsys.readouterr()
    assert stop.value.code == 2
    assert said.out == ""
    assert said.err.startswith("error: ") and said.err.count("\n") == 1
    assert message in said.err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            ("TEST.TRACKING_SCORE_THRESHOLD", "1.5"),
            "TEST.TRACKING_SCORE_THRESHOLD must be at least 0 and at most 1, not 1.5",
        ),
        (("LOG_WRITERS", "('tensorboard',)"), "LOG_WRITERS must have names from wandb, mlflow"),
    ],
)
def test_options_of_metrics_are_checked_before_training(
    toy: Toy, tmp_path: Path, option: tuple[str, str], message: str
) -> None:
    done = run(*toy.options(tmp_path / "out"), *option)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1] and "Starting training" not in done.stdout


def test_output_that_cannot_be_written(toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stop:
        main(["--config-file", str(CONFIG), *toy.options(tmp_path / "file" / "out")])
    assert stop.value.code == 2
    assert "OUTPUT_DIR" in capsys.readouterr().err


def test_training_starts_from_released_weights_of_other_classes(toy: Toy, tmp_path: Path) -> None:
    frozen = ["MODEL.RESNETS.NORM", "FrozenBN"]
    model = build_model(load_config(CONFIG, [*frozen, "MODEL.SeqFormer.NUM_CLASSES", "80"]))
    weights = original_layout(model.state_dict(), rows=list(range(1, 81)), num_rows=91)
    path = released_file(tmp_path / "coco.pth", weights)
    total = len(model.state_dict())
    start = [*frozen, "MODEL.WEIGHTS", str(path), "SOLVER.MAX_ITER", "1"]
    done = run(*toy.options(tmp_path / "out"), *start)
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "out" / "log.txt").read_text()
    assert f"{total - 4} of {total} tensors loaded; not loaded: class_embed (4)" in log
    assert "pretrained on COCO" in log


def test_training_refuses_weights_of_which_nothing_fits(toy: Toy, tmp_path: Path) -> None:
    torch.save({"model": {"encoder.weight": torch.zeros(2)}}, tmp_path / "other.pth")
    done = run(*toy.options(tmp_path / "out"), "MODEL.WEIGHTS", str(tmp_path / "other.pth"))
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: no tensor of weights")
    assert "Traceback" not in done.stderr + done.stdout
    assert not list((tmp_path / "out").glob("*.pth"))


def test_a_second_run_in_the_same_folder_is_refused(toy: Toy, tmp_path: Path) -> None:
    with locked(tmp_path / ".lock", "the folder"):
        done = run(*toy.options(tmp_path), "SOLVER.MAX_ITER", "1")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: OUTPUT_DIR '{tmp_path}' is in use by another run")
    assert not list(tmp_path.iterdir())
    assert run(*toy.options(tmp_path), "SOLVER.MAX_ITER", "1").returncode == 0


def test_a_killed_data_worker_ends_training_in_one_line(toy: Toy, tmp_path: Path) -> None:
    training = subprocess.Popen(
        command(*toy.options(tmp_path), "SOLVER.MAX_ITER", "100000", "DATALOADER.NUM_WORKERS", "1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in training.stdout:
        if "iter: " in line:
            children = Path(f"/proc/{training.pid}/task/{training.pid}/children").read_text().split()
            os.kill(int(children[-1]), signal.SIGKILL)
            break
    remaining, errors = training.communicate(timeout=TIMEOUT)
    assert training.returncode == 2, errors
    assert "Traceback" not in remaining + errors
    assert errors.splitlines()[-1].startswith("error: a data-loading process was killed")
