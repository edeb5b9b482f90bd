"""Writers of training metrics for Weights & Biases and MLflow. Both libraries are optional.

Projects, servers and names are configured as the libraries' own documentation says, for example with
WANDB_PROJECT, WANDB_MODE, MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME in the environment.
"""

from __future__ import annotations

import importlib
import json
import logging
import re
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode
from detectron2.utils.events import EventWriter, get_event_storage

from seqformer.errors import InputError
from seqformer.formats.files import write_json

__all__ = ["MLflowWriter", "RunWriter", "WandbWriter", "build_run_writers"]

logger = logging.getLogger(__name__)


class RunWriter(EventWriter):
    """Writes all scalars to a run of an experiment tracker.

    The id of the run is saved in OUTPUT_DIR, so that a resumed training continues it.

    Args:
        cfg: the config of the training, which becomes part of the run.

    Raises:
        InputError: if the library is not installed.
    """

    package: str
    """Name of the library."""

    def __init__(self, cfg: CfgNode):
        try:
            self._library: Any = importlib.import_module(self.package)
        except ImportError as error:
            raise InputError(
                f"LOG_WRITERS has '{self.package}', which cannot be imported ({error}): "
                f"pip install {self.package}"
            ) from error
        self._cfg = cfg
        self._id_file = Path(cfg.OUTPUT_DIR, f"{self.package}_run.json")
        self._started = False
        self._last_write = -1

    def start(self, *, resumed: bool) -> None:
        """Starts a run before the first step, or continues the one of a resumed training.

        Raises:
            InputError: if the run cannot be started; the message is the library's.
        """
        previous = None
        if resumed and self._id_file.is_file():
            previous = json.loads(self._id_file.read_text(encoding="utf-8"))["id"]
        try:
            run_id = self._start(previous)
        except self._errors() as error:
            raise InputError(f"{self.package}: {str(error).splitlines()[0]}") from error
        write_json(self._id_file, {"id": run_id})
        self._started = True

    def write(self) -> None:
        """Writes the scalars that are new since the last time; medians over LOG_PERIOD, as in the log."""
        if not self._started:
            return
        steps: dict[int, dict[str, float]] = defaultdict(dict)
        latest = get_event_storage().latest_with_smoothing_hint(self._cfg.LOG_PERIOD)
        for name, (value, step) in latest.items():
            if step > self._last_write:
                steps[step][name] = float(value)
        for step in sorted(steps):
            self._last_write = step
            try:
                self._log(steps[step], step)
            except self._errors() as error:  # a server that is away must not end the training
                logger.warning("%s: step %d is not logged: %s", self.package, step, error)

    def close(self) -> None:
        if self._started:
            self._started = False
            completed = get_event_storage().iter >= self._cfg.SOLVER.MAX_ITER
            try:
                self._finish(completed)
            except self._errors() as error:
                logger.warning("%s: the run could not be closed: %s", self.package, error)

    @abstractmethod
    def _errors(self) -> type[Exception]:
        """Returns the base class of the library's errors."""

    @abstractmethod
    def _start(self, previous: str | None) -> str:
        """Starts a run, or continues the one with the id ``previous``. Returns its id."""

    @abstractmethod
    def _log(self, scalars: dict[str, float], step: int) -> None: ...

    @abstractmethod
    def _finish(self, completed: bool) -> None: ...


class WandbWriter(RunWriter):
    """Writes to Weights & Biases. Its files are in OUTPUT_DIR/wandb."""

    package = "wandb"

    def _errors(self) -> type[Exception]:
        return self._library.Error

    def _start(self, previous: str | None) -> str:
        self._run = self._library.init(
            dir=self._cfg.OUTPUT_DIR, config=yaml.safe_load(self._cfg.dump()), id=previous, resume="allow"
        )
        # Steps that a resumed training repeats would be dropped if they were wandb's own steps.
        self._run.define_metric("iteration")
        self._run.define_metric("*", step_metric="iteration")
        return self._run.id

    def _log(self, scalars: dict[str, float], step: int) -> None:
        self._run.log({"iteration": step, **scalars})

    def _finish(self, completed: bool) -> None:
        self._run.finish(exit_code=0 if completed else 1)


class MLflowWriter(RunWriter):
    """Writes to MLflow. The config is the artifact config.yaml."""

    package = "mlflow"

    def _errors(self) -> type[Exception]:
        return self._library.exceptions.MlflowException

    def _start(self, previous: str | None) -> str:
        run_id = self._library.start_run(run_id=previous).info.run_id
        self._library.log_text(self._cfg.dump(), "config.yaml")
        return run_id

    def _log(self, scalars: dict[str, float], step: int) -> None:
        # MLflow refuses other characters, which class names may have.
        self._library.log_metrics(
            {re.sub(r"[^\w./: -]", "_", name): value for name, value in scalars.items()}, step=step
        )

    def _finish(self, completed: bool) -> None:
        self._library.end_run("FINISHED" if completed else "KILLED")


_WRITERS: dict[str, type[RunWriter]] = {writer.package: writer for writer in (WandbWriter, MLflowWriter)}


def build_run_writers(cfg: CfgNode) -> Sequence[RunWriter]:
    """Returns the writers of LOG_WRITERS.

    Raises:
        InputError: if a name is unknown or its library is not installed.
    """
    for name in cfg.LOG_WRITERS:
        if name not in _WRITERS:
            raise InputError(f"LOG_WRITERS must have names from {', '.join(_WRITERS)}, not '{name}'")
    return [_WRITERS[name](cfg) for name in cfg.LOG_WRITERS]
