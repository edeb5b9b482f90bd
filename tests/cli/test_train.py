"""The training command: a run that is interrupted, resumed and evaluated; the optimizer; bad input."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from torch import nn

from seqformer import add_seqformer_config
from seqformer.config import load_config
from seqformer.data.toy import make_toy_dataset
from seqformer.engine.trainer import build_optimizer, command_line
from seqformer.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "toy" / "seqformer_toy.yaml"
SMALL = ["INPUT.MIN_SIZE_TRAIN", "(48,)", "INPUT.MIN_SIZE_TEST", "48", "INPUT.SAMPLING_FRAME_NUM", "2"]
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
    """Output folder and last step of a training that Ctrl-C ended."""
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
    assert "Stopping after this step" in remaining
    assert "Traceback" not in remaining + errors
    assert errors.splitlines()[-1] == "interrupted; --resume goes on from the last checkpoint"
    name = (output / "last_checkpoint").read_text()
    assert (output / name).is_file()
    return output, int(name.removeprefix("model_").removesuffix(".pth"))


@pytest.fixture(scope="module")
def finished(interrupted: tuple[Path, int], toy: Toy) -> tuple[Path, int, str]:
    """The same training, resumed for three more steps: folder, step before, and what it said."""
    output, step = interrupted
    more = ["SOLVER.MAX_ITER", str(step + 4)]
    done = run("--resume", *toy.options(output), *more)
    assert done.returncode == 0, done.stderr
    return output, step, done.stdout


@pytest.mark.slow
def test_resume_goes_on_after_the_last_step(finished: tuple[Path, int, str]) -> None:
    output, step, said = finished
    assert f"Starting training from iteration {step + 1}" in said
    checkpoint = torch.load(output / "model_final.pth", weights_only=False)
    assert checkpoint["iteration"] == step + 3
    assert checkpoint["trainer"]["_trainer"]["optimizer"]["state"]


@pytest.mark.slow
def test_training_ends_with_an_evaluation(finished: tuple[Path, int, str], toy: Toy) -> None:
    output, _, said = finished
    results = json.loads(next(output.glob("inference/*/results.json")).read_text())
    assert {result["video_id"] for result in results} <= {1, 2}
    assert all(len(result["segmentations"]) == 3 for result in results)
    assert "| category" in said and "| triangle" in said


@pytest.mark.slow
def test_eval_only_gives_what_training_ended_with(
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


def config(**solver: Any) -> CfgNode:
    cfg = get_cfg()
    add_seqformer_config(cfg)
    cfg.SOLVER.merge_from_list([item for pair in solver.items() for item in pair])
    cfg.SOLVER.BASE_LR = 0.1
    cfg.SOLVER.WEIGHT_DECAY = 0.05
    return cfg


class Network(nn.Module):
    """Has a backbone, a norm and a frozen parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(2, 2)
        self.head = nn.Linear(2, 2)
        self.norm = nn.LayerNorm(2)
        self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)

    def groups(self, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Any]]:
        names = {parameter: name for name, parameter in self.named_parameters()}
        return {names[p]: group for group in optimizer.param_groups for p in group["params"]}


@pytest.mark.parametrize(("name", "kind"), [("ADAMW", torch.optim.AdamW), ("SGD", torch.optim.SGD)])
def test_rates_and_decay_of_every_parameter(name: str, kind: type) -> None:
    network = Network()
    cfg = config(OPTIMIZER=name, BACKBONE_MULTIPLIER=0.2, WEIGHT_DECAY_NORM=0.01)
    optimizer = build_optimizer(cfg, network)
    assert isinstance(optimizer, kind)
    groups = network.groups(optimizer)
    assert "frozen" not in groups and len(groups) == 6
    for parameter, group in groups.items():
        assert group["lr"] == pytest.approx(0.02 if parameter.startswith("backbone") else 0.1)
        assert group["weight_decay"] == (0.01 if parameter.startswith("norm") else 0.05)


@pytest.mark.parametrize("enabled", [True, False])
def test_full_model_clipping_takes_one_norm(enabled: bool) -> None:
    network = Network()
    cfg = config(OPTIMIZER="SGD", MOMENTUM=0.0, BACKBONE_MULTIPLIER=1.0, WEIGHT_DECAY_NORM=0.0)
    cfg.SOLVER.WEIGHT_DECAY = 0.0
    cfg.SOLVER.CLIP_GRADIENTS.merge_from_list(
        ["ENABLED", enabled, "CLIP_TYPE", "full_model", "CLIP_VALUE", 0.5]
    )
    optimizer = build_optimizer(cfg, network)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    gradients = [torch.randn_like(parameter) for parameter in trained]
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    before = [parameter.detach().clone() for parameter in trained]
    for parameter, gradient in zip(trained, gradients, strict=True):
        parameter.grad = gradient.clone()
    optimizer.step()
    scale = 0.1 * (0.5 / norm if enabled else 1.0)
    for parameter, old, gradient in zip(trained, before, gradients, strict=True):
        torch.testing.assert_close(parameter.detach(), old - scale * gradient, rtol=1e-4, atol=1e-6)
    optimizer.zero_grad()
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # a norm of zero is none to divide by
    assert all(parameter.isfinite().all() for parameter in trained)


@pytest.mark.parametrize(
    ("clip_type", "expected"), [("value", [0.5, -0.5, 0.3]), ("norm", [0.48, -0.14, 0.3])]
)
def test_clipping_by_parameter(clip_type: str, expected: list[float]) -> None:
    network = Network()
    cfg = config(OPTIMIZER="SGD")
    cfg.SOLVER.CLIP_GRADIENTS.merge_from_list(["ENABLED", True, "CLIP_TYPE", clip_type, "CLIP_VALUE", 0.5])
    optimizer = build_optimizer(cfg, network)
    network.head.bias.grad = torch.tensor([4.8, -1.4])
    network.norm.bias.grad = torch.tensor([0.3, 0.0])
    optimizer.step()  # the other parameters have no gradient, as some of the published network
    clipped = [*network.head.bias.grad.tolist(), network.norm.bias.grad[0].item()]
    assert clipped == pytest.approx(expected, rel=1e-4)


def test_unknown_optimizer_and_clipping() -> None:
    with pytest.raises(InputError, match="SOLVER.OPTIMIZER must be ADAMW or SGD, not 'LION'"):
        build_optimizer(config(OPTIMIZER="LION"), Network())
    cfg = config()
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "model"
    with pytest.raises(InputError, match="CLIP_TYPE must be one of full_model, norm, value, not 'model'"):
        build_optimizer(cfg, Network())
    with pytest.raises(InputError, match="every parameter is frozen"):
        build_optimizer(config(), Network().requires_grad_(False))


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("**/*.yaml")), ids=lambda path: path.stem)
def test_configs_load(path: Path) -> None:
    cfg = load_config(path)
    assert cfg.MODEL.META_ARCHITECTURE == "SeqFormer"
    assert cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE == "full_model"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config-file", "nowhere.yaml"], "no config file 'nowhere.yaml'"),
        ([], "give a config file"),
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
        command_line(arguments)
    said = capsys.readouterr()
    assert stop.value.code == 2
    assert said.out == ""
    assert said.err.startswith("error: ") and said.err.count("\n") == 1
    assert message in said.err


def test_output_that_cannot_be_written(toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stop:
        command_line(["--config-file", str(CONFIG), *toy.options(tmp_path / "file" / "out")])
    assert stop.value.code == 2
    assert "OUTPUT_DIR" in capsys.readouterr().err
