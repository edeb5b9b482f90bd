"""Writers for experiment trackers, with modules that stand in for the libraries."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from detectron2.config import CfgNode
from detectron2.engine.train_loop import HookBase, TrainerBase

from seqformer.cli.main import main
from seqformer.config import load_config
from seqformer.data.toy import make_toy_dataset
from seqformer.engine.hooks import MetricsWriter
from seqformer.engine.writers import build_run_writers
from seqformer.errors import InputError

CONFIG = Path(__file__).resolve().parents[2] / "configs/toy/seqformer_toy.yaml"
BOTH = "('wandb', 'mlflow')"


class Server:
    """What the two libraries were told."""

    def __init__(self) -> None:
        self.runs: list[dict[str, Any]] = []  # one for each start
        self.failure: str | None = None  # message of the next call's error

    def start(self, library: str, id_: str | None, **values: Any) -> dict[str, Any]:
        self.check()
        id_ = id_ or f"{library}-{len(self.runs)}"
        self.runs.append({"library": library, "id": id_, "steps": {}, "end": None, **values})
        return self.runs[-1]

    def check(self) -> None:
        if self.failure:
            raise Refused(self.failure)

    def of(self, library: str) -> list[dict[str, Any]]:
        return [run for run in self.runs if run["library"] == library]


class Refused(Exception):
    """The libraries' error."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()

    def init(*, dir: str, config: dict[str, Any], id: str | None, resume: str) -> SimpleNamespace:
        assert resume == "allow"
        run = server.start("wandb", id, config=config, dir=dir, axes=[])

        def log(data: dict[str, float]) -> None:
            server.check()
            data = dict(data)
            run["steps"].setdefault(data.pop("iteration"), {}).update(data)

        return SimpleNamespace(
            id=run["id"],
            define_metric=lambda name, step_metric=None: run["axes"].append((name, step_metric)),
            log=log,
            finish=lambda exit_code: run.update(end=exit_code),
        )

    def log_metrics(metrics: dict[str, float], step: int) -> None:
        server.check()
        server.of("mlflow")[-1]["steps"].setdefault(step, {}).update(metrics)

    wandb, mlflow = ModuleType("wandb"), ModuleType("mlflow")
    vars(wandb).update(Error=Refused, init=init)
    vars(mlflow).update(
        exceptions=SimpleNamespace(MlflowException=Refused),
        start_run=lambda run_id: SimpleNamespace(
            info=SimpleNamespace(run_id=server.start("mlflow", run_id, texts={})["id"])
        ),
        log_text=lambda text, name: server.of("mlflow")[-1]["texts"].update({name: text}),
        log_metrics=log_metrics,
        end_run=lambda status: server.of("mlflow")[-1].update(end=status),
    )
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    return server


@pytest.fixture
def cfg(tmp_path: Path) -> CfgNode:
    options = ["LOG_WRITERS", BOTH, "OUTPUT_DIR", str(tmp_path), "LOG_PERIOD", "1", "SOLVER.MAX_ITER", "4"]
    return load_config(CONFIG, options)


class Step(HookBase):
    """Reports a loss in every step, and an evaluation after the second."""

    def after_step(self) -> None:
        storage = self.trainer.storage
        storage.put_scalar("total_loss", float(self.trainer.iter))
        if self.trainer.iter == 1:
            storage.put_scalars(**{"segm/AP": math.nan, "segm/AP-cat (big)": 7.0}, smoothing_hint=False)


def train(cfg: CfgNode, start: int = 0, stop: int | None = None) -> None:
    trainer = TrainerBase()

    def run_step() -> None:
        if trainer.iter == stop:
            raise KeyboardInterrupt

    trainer.run_step = run_step
    trainer.register_hooks([Step(), MetricsWriter(build_run_writers(cfg), cfg.LOG_PERIOD)])
    trainer.train(start, cfg.SOLVER.MAX_ITER)


def test_every_step_is_written_once_under_its_number(cfg: CfgNode, server: Server, tmp_path: Path) -> None:
    train(cfg)
    wandb, mlflow = server.runs
    for run in (wandb, mlflow):
        assert {step: values["total_loss"] for step, values in run["steps"].items()} == {
            n: n for n in range(4)
        }
        assert math.isnan(run["steps"][1]["segm/AP"]) and "segm/AP" not in run["steps"][2]
    assert wandb["steps"][1]["segm/AP-cat (big)"] == mlflow["steps"][1]["segm/AP-cat _big_"] == 7
    assert (wandb["end"], mlflow["end"]) == (0, "FINISHED")
    assert wandb["axes"] == [("iteration", None), ("*", "iteration")] and wandb["dir"] == str(tmp_path)
    assert wandb["config"]["SOLVER"]["MAX_ITER"] == 4
    assert mlflow["texts"]["config.yaml"] == cfg.dump()


def test_a_resumed_training_continues_its_run(cfg: CfgNode, server: Server) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(cfg, stop=3)
    assert [run["end"] for run in server.runs] == [1, "KILLED"]
    train(cfg, start=2)
    first, second, third, fourth = server.runs
    assert (third["id"], fourth["id"]) == (first["id"], second["id"])
    assert list(third["steps"]) == list(fourth["steps"]) == [2, 3]
    train(cfg)
    assert {run["id"] for run in server.runs[4:]}.isdisjoint({first["id"], second["id"]}), "a new training"


def test_a_server_that_is_away_does_not_end_the_training(
    cfg: CfgNode, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(
        Step,
        "before_step",
        lambda self: setattr(server, "failure", "away" if self.trainer.iter == 2 else None),
    )
    with caplog.at_level(logging.WARNING, "seqformer"):
        train(cfg)
    assert [list(run["steps"]) for run in server.runs] == [[0, 1, 3]] * 2
    assert [record.message for record in caplog.records] == [
        f"{name}: step 2 is not logged: away" for name in ("wandb", "mlflow")
    ]


def test_a_run_that_cannot_start_is_one_line(cfg: CfgNode, server: Server) -> None:
    server.failure = "No API key configured.\nUse `wandb login`"
    with pytest.raises(InputError, match=r"^wandb: No API key configured\.$"):
        train(cfg)
    assert not server.runs


def test_unknown_and_missing_libraries(cfg: CfgNode, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg.LOG_WRITERS = ("tensorboard",)
    with pytest.raises(InputError, match="names from wandb, mlflow, not 'tensorboard'"):
        build_run_writers(cfg)
    for name in ("wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, name, None)
        cfg.LOG_WRITERS = (name,)
        with pytest.raises(InputError, match=f"LOG_WRITERS has '{name}', .*: pip install {name}$"):
            build_run_writers(cfg)


def test_nothing_by_default(server: Server) -> None:
    assert list(build_run_writers(load_config(CONFIG))) == [] and not server.runs


@pytest.fixture
def training(tmp_path: Path) -> Iterator[list[str]]:
    """The arguments of a training of two steps."""
    json_file, _, frames = make_toy_dataset(tmp_path, num_train=2, num_val=0, length=3, size=(48, 64))
    data = f"('ytvis:{json_file}:{frames}',)"
    options = ["DATASETS.TRAIN", data, "DATASETS.TEST", "()", "INPUT.MIN_SIZE_TRAIN", "(48,)"]
    options += ["SOLVER.MAX_ITER", "2", "LOG_PERIOD", "1", "OUTPUT_DIR", str(tmp_path / "out")]
    options += ["DATALOADER.NUM_WORKERS", "0", "INPUT.SAMPLING_FRAME_NUM", "2", "LOG_WRITERS", BOTH]
    yield ["train", "--config-file", str(CONFIG), *options]
    for name in ("detectron2", "fvcore", "seqformer"):  # default_setup adds handlers and stops propagation
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True


def test_the_training_command_writes_what_is_in_its_log(
    training: list[str], server: Server, tmp_path: Path
) -> None:
    main(training)
    log = [json.loads(line) for line in (tmp_path / "out/metrics.json").read_text().splitlines()]
    losses = {line["iteration"]: line["total_loss"] for line in log if "total_loss" in line}
    assert sorted(losses) == [0, 1]
    for run in server.runs:
        assert {
            step: values["total_loss"] for step, values in run["steps"].items() if "total_loss" in values
        } == losses
    assert [run["end"] for run in server.runs] == [0, "FINISHED"]


def test_the_training_command_ends_before_the_first_step_if_it_cannot_log(
    training: list[str], server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.failure = "No API key configured."
    with pytest.raises(SystemExit) as exit_:
        main(training)
    errors = capsys.readouterr().err
    assert exit_.value.code == 2 and "Traceback" not in errors
    assert errors.splitlines()[-1] == "error: wandb: No API key configured."
    assert (tmp_path / "out/metrics.json").read_text() == ""
