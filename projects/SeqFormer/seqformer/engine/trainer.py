"""Training on videos: Detectron2's trainer with exact resume, averaged weights and mixed precision."""

from __future__ import annotations

import logging
import os
import signal
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import AMPTrainer, DefaultTrainer, HookBase, SimpleTrainer, create_ddp_model
from detectron2.engine.hooks import EvalHook, IterationTimer, LRScheduler, PeriodicCheckpointer, PreciseBN
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import CommonMetricPrinter, EventWriter, JSONWriter, TensorboardXWriter
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from seqformer.checkpoints import SeqFormerCheckpointer
from seqformer.data import build_test_loader, build_train_loader, training_order
from seqformer.data.order import derived_seed
from seqformer.engine.budget import TimeBudget
from seqformer.engine.hooks import BestCheckpoint, MetricsWriter
from seqformer.engine.optimizer import build_optimizer
from seqformer.engine.writers import build_run_writers
from seqformer.errors import DivergedError, InputError

__all__ = ["Trainer", "load_evaluated_model"]

logger = logging.getLogger(__name__)

_STOPPING = b"\nStopping after this step and saving a checkpoint; press Ctrl-C again to stop now\n"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PRECISIONS = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class _BadInputInStep(BaseException):
    """Carries an InputError past Detectron2's training loop, which logs a traceback of every Exception."""

    def __init__(self, error: InputError):
        super().__init__(error)
        self.error = error


class _Ended(BaseException):
    """Leaves Detectron2's training loop, whose number of steps cannot change, after the last step."""


@contextmanager
def _without_worker_traceback() -> Iterator[None]:
    """Removes the traceback that a data-loading process puts into the message of an InputError.

    Raises:
        InputError: the same error in one line, or that a data-loading process was killed.
    """
    try:
        yield
    except DivergedError:
        raise
    except InputError as error:
        message = str(error).rsplit("InputError: ", 1)[-1].strip()
        raise InputError(message) from error
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise InputError(
            "a data-loading process was killed, perhaps for want of memory: lower DATALOADER.NUM_WORKERS; "
            "--resume continues a training from the last checkpoint"
        ) from error


@contextmanager
def _bad_input_in_step() -> Iterator[None]:
    try:
        with _without_worker_traceback():
            yield
    except InputError as error:
        raise _BadInputInStep(error) from error


def _check_losses(model: nn.Module, inputs: Any, losses: dict[str, torch.Tensor]) -> None:
    """Raises a DivergedError if a loss is not finite; a forward hook, also called in evaluation."""
    if not model.training or torch.stack(list(losses.values())).detach().isfinite().all():
        return
    wrong = [f"{name} {loss.item()}" for name, loss in losses.items() if not loss.isfinite()]
    raise DivergedError(f"losses are not finite, including {wrong[0]}")


class Trainer(DefaultTrainer):
    """Detectron2's trainer with video data and AdamW.

    A clip depends only on the seed and its position in the order. Random numbers in a step depend only on the
    seed, the step and the process. A training that is killed and resumed (``resume_or_load(resume=True)``)
    therefore produces the same weights as one without interruption. Steps since the last checkpoint are
    repeated. Learning rates are those of the config, which may be lowered before resuming.

    If losses, predictions or weights are not finite, training ends with a DivergedError, and resumes from the
    newest checkpoint whose losses in the next step were finite.

    On Ctrl-C and SIGTERM the trainer finishes the step, saves a checkpoint and raises KeyboardInterrupt. A
    second Ctrl-C stops immediately.

    Args:
        cfg: the config; DATASETS.TRAIN and DATASETS.TEST must contain registered names.
        make_evaluator: returns the evaluator for the name of a dataset in DATASETS.TEST.
        seconds: end after this time, with the learning rates of a training of that length; for one process.
            SOLVER.MAX_ITER is then the greatest number of steps.

    Raises:
        InputError: if a dataset or an option cannot be used; in training, if a file cannot be read.

    Examples:
        >>> trainer = Trainer(cfg, YTVISEvaluator)
        >>> trainer.resume_or_load(resume=False)
        >>> trainer.train()
    """

    def __init__(
        self,
        cfg: CfgNode,
        make_evaluator: Callable[[str], DatasetEvaluator],
        *,
        seconds: float | None = None,
    ):
        # Replaces DefaultTrainer.__init__: datasets are loaded first, because they fail most often, and DDP
        # and the checkpointer need other arguments.
        super(DefaultTrainer, self).__init__()
        cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        data_loader = self.build_train_loader(cfg)
        self._order = training_order(data_loader)
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        on_cuda = cfg.MODEL.DEVICE.startswith("cuda")
        self._network = model
        self._average: AveragedModel | None = None
        if cfg.SOLVER.EMA.ENABLED:
            self._average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(cfg.SOLVER.EMA.DECAY))
        model = create_ddp_model(
            model,
            broadcast_buffers=False,
            find_unused_parameters=cfg.FIND_UNUSED_PARAMETERS,
            device_ids=[comm.get_local_rank()] if on_cuda else None,
        )
        mixed_precision = cfg.SOLVER.AMP.ENABLED
        if mixed_precision and on_cuda:
            dtype = cfg.SOLVER.AMP.DTYPE
            if dtype not in _PRECISIONS:
                raise InputError(f"SOLVER.AMP.DTYPE must be one of {', '.join(_PRECISIONS)}, not '{dtype}'")
            # bfloat16 has float32's range, so gradients need no scaling.
            scaler = torch.amp.GradScaler("cuda", enabled=dtype == "float16")
            self._trainer = AMPTrainer(
                model, data_loader, optimizer, grad_scaler=scaler, precision=_PRECISIONS[dtype]
            )
        else:
            self._trainer = SimpleTrainer(model, data_loader, optimizer)
        self._autocast = torch.autocast("cpu", torch.bfloat16, enabled=mixed_precision and not on_cuda)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = SeqFormerCheckpointer(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self._make_evaluator = make_evaluator
        self._seconds = seconds
        self._interrupted = False
        self._batch: list[dict[str, Any]] = []
        model.register_forward_pre_hook(self._remember_batch)
        model.register_forward_hook(_check_losses)
        self.register_hooks(self.build_hooks())

    @property
    def evaluated_model(self) -> nn.Module:
        """The network with the weights to evaluate: their moving average, if there is one."""
        return self._network if self._average is None else self._average.module

    def build_hooks(self) -> list[HookBase]:
        """Returns Detectron2's hooks, changed to evaluate the averaged weights and to save the best ones."""
        cfg = self.cfg
        period, names = cfg.TEST.EVAL_PERIOD, cfg.DATASETS.TEST
        # Timing starts at the first step, so that the first line of metrics has an ETA.
        built = [IterationTimer(warmup_iter=0), LRScheduler()]
        if self._seconds is not None:
            built.insert(0, TimeBudget(self._seconds, self.end_at))
        if cfg.TEST.PRECISE_BN.ENABLED:
            alone = cfg.clone()
            alone.merge_from_list(["DATALOADER.NUM_WORKERS", 0])
            loader = self.build_train_loader(alone)
            built.append(PreciseBN(period, self.model, loader, cfg.TEST.PRECISE_BN.NUM_ITER))
        if comm.is_main_process():
            built.append(PeriodicCheckpointer(self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD))
        built.append(EvalHook(period, self._evaluate))
        if comm.is_main_process():
            if period > 0 and names:
                saver = SeqFormerCheckpointer(self.evaluated_model, cfg.OUTPUT_DIR, resumable=False)
                metric = "segm/AP" if len(names) == 1 else f"{names[0]}/segm/AP"
                built.append(BestCheckpoint(period, saver, metric))
            built.append(MetricsWriter(self.build_writers(), cfg.LOG_PERIOD))
        return built

    def build_writers(self) -> list[EventWriter]:
        period, folder = self.cfg.LOG_PERIOD, self.cfg.OUTPUT_DIR
        self._printer = CommonMetricPrinter(self.max_iter, window_size=period)
        return [
            self._printer,
            JSONWriter(str(Path(folder, "metrics.json")), window_size=period),
            TensorboardXWriter(folder, window_size=period),
            *build_run_writers(self.cfg),
        ]

    def _evaluate(self) -> Any:
        evaluators = [self._make_evaluator(name) for name in self.cfg.DATASETS.TEST]
        self._last_eval_results = self.test(self.cfg, self.evaluated_model, evaluators)
        return self._last_eval_results

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module, evaluators: Sequence[DatasetEvaluator]) -> Any:
        """Evaluates a model on the datasets of DATASETS.TEST, with one evaluator for each.

        Returns:
            the metrics of the dataset; for several datasets, a dict of metrics by name.

        Raises:
            InputError: if a file cannot be read, or the results cannot be written.
        """
        with _without_worker_traceback():
            return super().test(cfg, model, evaluators)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Any:
        return build_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        return build_optimizer(cfg, model)

    def end_at(self, max_iter: int) -> None:
        """Sets the number of steps, at most SOLVER.MAX_ITER. Learning rates and the ETA follow it."""
        self.max_iter = self.scheduler._max_iter = self._printer._max_iter = max_iter
        for hook in self._hooks:
            if isinstance(hook, PeriodicCheckpointer):
                hook.max_iter = max_iter

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict() | {"seed": self._order.seed}
        if self._average is not None:
            state["average"] = self._average.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        groups = self._trainer.optimizer.param_groups
        rates = [group["initial_lr"] for group in groups]
        super().load_state_dict(state_dict)
        self._set_learning_rates(rates)
        self._order.seed = state_dict.get("seed", self._order.seed)
        if self._average is not None and "average" in state_dict:
            self._average.load_state_dict(state_dict["average"])

    def _set_learning_rates(self, rates: list[float]) -> None:
        """Makes a resumed training follow the config's learning rates, not those of the checkpoint."""
        groups = self._trainer.optimizer.param_groups
        if rates == [group["initial_lr"] for group in groups]:
            return
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] *= rate / group["initial_lr"]
            group["initial_lr"] = rate
        self.scheduler.base_lrs = rates
        logger.info("SOLVER.BASE_LR is another than in the checkpoint: continuing with that of the config")

    def before_train(self) -> None:
        self._order.first_batch = self.start_iter
        # Starts the data-loading processes. This uses a random number, so it must not happen in a step.
        _ = self._trainer._data_loader_iter
        with _bad_input_in_step():
            super().before_train()

    def before_step(self) -> None:
        seed_all_rng(derived_seed(self._order.seed, self.iter, comm.get_rank()))
        super().before_step()

    def run_step(self) -> None:
        with _bad_input_in_step(), self._autocast:
            try:
                super().run_step()
            except DivergedError as error:
                raise self._diverged(error) from error
        if self._average is not None:
            self._average.update_parameters(self._network)

    def after_step(self) -> None:
        with _bad_input_in_step(), self._writing():
            try:
                super().after_step()
            except DivergedError as error:  # when a checkpoint was to be saved
                raise self._diverged(error) from error
            if self._stop():
                if comm.is_main_process():
                    self.checkpointer.save(f"model_{self.iter:07d}", iteration=self.iter)
                raise KeyboardInterrupt
        if self.iter + 1 == self.max_iter < self.cfg.SOLVER.MAX_ITER:
            self.iter += 1  # as at the end of Detectron2's loop
            raise _Ended

    def after_train(self) -> None:
        with _bad_input_in_step(), self._writing():
            super().after_train()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            folder = f"OUTPUT_DIR '{self.cfg.OUTPUT_DIR}'"
            raise InputError(f"{folder} cannot be written: {error.strerror}") from error

    def _remember_batch(self, _: nn.Module, inputs: tuple[list[dict[str, Any]]]) -> None:
        self._batch = inputs[0]

    def _diverged(self, error: DivergedError) -> DivergedError:
        """Makes training resume from before the weights that led to the error, and says all about it."""
        # Losses of this step belong to the weights after the step before.
        resumed = self.checkpointer.go_back(self.iter - 1) if comm.is_main_process() else None
        clips = "; ".join(
            f"video {clip.get('video_id', clip.get('image_id'))}: {', '.join(map(str, clip['file_names']))}"
            for clip in self._batch
        )
        advice = f"lower SOLVER.BASE_LR, which is {self.cfg.SOLVER.BASE_LR:g}, and "
        advice += (
            f"continue from {resumed} with --resume" if resumed else "start again: no checkpoint is older"
        )
        return DivergedError(f"iteration {self.iter}: {error} ({clips}); {advice}")

    def _stop(self) -> bool:
        """Whether any process was interrupted; all processes stop after the same step."""
        if comm.get_world_size() == 1:
            return self._interrupted
        flag = torch.tensor(float(self._interrupted), device=self._network.device)
        torch.distributed.all_reduce(flag)
        return flag.item() > 0

    def train(self) -> Any:
        previous = {number: signal.signal(number, self._interrupt) for number in _SIGNALS}
        try:
            return super().train()
        except _BadInputInStep as error:
            raise error.error from None
        except _Ended:
            return None
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _interrupt(self, number: int, _: Any) -> None:
        if self._interrupted:
            if number == signal.SIGTERM:  # can arrive twice, from a cluster and from torchrun
                return
            raise KeyboardInterrupt
        self._interrupted = True
        if comm.is_main_process():
            # Do not use the logger: the signal may have interrupted one of its own writes.
            os.write(sys.stderr.fileno(), _STOPPING)


def load_evaluated_model(cfg: CfgNode, *, resume: bool = False) -> nn.Module:
    """Returns the model with the weights to evaluate; with SOLVER.EMA.ENABLED, their moving average.

    It computes in MODEL.SeqFormer.PRECISION.

    Args:
        cfg: the config.
        resume: load the last checkpoint in OUTPUT_DIR, if there is one, instead of MODEL.WEIGHTS.

    Raises:
        InputError: if the weights are missing or do not fit the model.
    """
    model = Trainer.build_model(cfg)
    checkpointer = SeqFormerCheckpointer(model, cfg.OUTPUT_DIR, strict=True)
    rest = checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    average = rest.get("trainer", {}).get("average")
    if cfg.SOLVER.EMA.ENABLED and average is not None:
        averaged = AveragedModel(model)
        averaged.load_state_dict(average)
        model = averaged.module
    model.reduce_precision()
    return model
