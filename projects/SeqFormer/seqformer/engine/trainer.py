#!/usr/bin/env python3
"""Trains SeqFormer, or evaluates it with ``--eval-only``.

``train_net.py --config-file FILE [--num-gpus N] [--resume] [--eval-only] [KEY VALUE ...]``

In several processes, on GPUs or CPUs: ``torchrun --nproc_per_node N train_net.py --config-file FILE ...``
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import seqformer  # noqa: F401  before Detectron2, one of whose warnings it hides

# isort: split
import torch
from detectron2.config import CfgNode
from detectron2.engine import (
    AMPTrainer,
    DefaultTrainer,
    HookBase,
    SimpleTrainer,
    create_ddp_model,
    default_argument_parser,
    default_setup,
    launch,
)
from detectron2.engine.hooks import (
    EvalHook,
    IterationTimer,
    LRScheduler,
    PeriodicCheckpointer,
    PeriodicWriter,
    PreciseBN,
)
from detectron2.solver.build import get_default_optimizer_params
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import CommonMetricPrinter, EventWriter, JSONWriter, TensorboardXWriter
from detectron2.utils.logger import setup_logger
from torch import nn
from torch.multiprocessing import ProcessExitedException
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from seqformer.checkpoint import SeqFormerCheckpointer
from seqformer.config import load_config
from seqformer.data import build_test_loader, build_train_loader, resolve_datasets, training_order
from seqformer.data.order import derived_seed
from seqformer.engine import BestCheckpoint, keep_freed_memory, started_by_torchrun, torchrun_processes
from seqformer.errors import InputError, exit_on_bad_input
from seqformer.evaluation import YTVISEvaluator

logger = logging.getLogger("seqformer.train_net")

_INTERRUPTED = 130  # exit code, 128 + SIGINT
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_CLIP_TYPES = ("full_model", "norm", "value")
_PRECISIONS = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Exits on bad input; an error from a data-loading process loses the traceback it arrives with."""
    with exit_on_bad_input():
        try:
            yield
        except InputError as error:
            message = str(error).rsplit("InputError: ", 1)[-1].strip()
            raise InputError(message) from error


class Trainer(DefaultTrainer):
    """Detectron2's trainer with video data, AdamW and the YouTube-VIS metric.

    Clips depend on the seed and their place in the order, and what is random in a step on the seed, the step
    and the process. So ``--resume`` goes on exactly as if nothing had happened, after a kill at any moment;
    what was computed since the last checkpoint is computed again.

    Ctrl-C and SIGTERM finish the step, save a checkpoint that ``--resume`` goes on from, and exit; a second
    Ctrl-C stops at once.
    """

    def __init__(self, cfg: CfgNode):
        # Of DefaultTrainer's own __init__ the data come first here, since that is where input is wrong
        # most often; DDP and the checkpointer are made with other arguments.
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
        self._interrupted = False
        self.register_hooks(self.build_hooks())

    @property
    def evaluated_model(self) -> nn.Module:
        """The network with the weights that are evaluated: their moving average, if there is one."""
        return self._network if self._average is None else self._average.module

    def build_hooks(self) -> list[HookBase]:
        """Detectron2's, with the averaged weights evaluated and the best ones kept."""
        cfg = self.cfg
        period, names = cfg.TEST.EVAL_PERIOD, cfg.DATASETS.TEST
        built = [IterationTimer(), LRScheduler()]
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
            built.append(PeriodicWriter(self.build_writers(), cfg.LOG_PERIOD))
        return built

    def build_writers(self) -> list[EventWriter]:
        period, folder = self.cfg.LOG_PERIOD, self.cfg.OUTPUT_DIR
        return [
            CommonMetricPrinter(self.max_iter, window_size=period),
            JSONWriter(str(Path(folder, "metrics.json")), window_size=period),
            TensorboardXWriter(folder, window_size=period),
        ]

    def _evaluate(self) -> Any:
        self._last_eval_results = self.test(self.cfg, self.evaluated_model)
        return self._last_eval_results

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Any:
        return build_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> YTVISEvaluator:
        return YTVISEvaluator(dataset_name, Path(cfg.OUTPUT_DIR, "inference", dataset_name))

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        return build_optimizer(cfg, model)

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict() | {"seed": self._order.seed}
        if self._average is not None:
            state["average"] = self._average.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._order.seed = state_dict.get("seed", self._order.seed)
        if self._average is not None and "average" in state_dict:
            self._average.load_state_dict(state_dict["average"])

    def before_train(self) -> None:
        self._order.first_batch = self.start_iter
        # Starts the processes that load data. That draws a random number, so it must not happen in a step.
        _ = self._trainer._data_loader_iter
        super().before_train()

    def before_step(self) -> None:
        seed_all_rng(derived_seed(self._order.seed, self.iter, comm.get_rank()))
        super().before_step()

    def run_step(self) -> None:
        with _one_line_errors(), self._autocast:
            super().run_step()
        if self._average is not None:
            self._average.update_parameters(self._network)

    def after_step(self) -> None:
        with _one_line_errors():
            super().after_step()
        if self._stop():
            if comm.is_main_process():
                self.checkpointer.save(f"model_{self.iter:07d}", iteration=self.iter)
            raise KeyboardInterrupt

    def _stop(self) -> bool:
        """Whether any process was interrupted: all of them stop after the same step."""
        if comm.get_world_size() == 1:
            return self._interrupted
        flag = torch.tensor(float(self._interrupted), device=self._network.device)
        torch.distributed.all_reduce(flag)
        return flag.item() > 0

    def train(self) -> Any:
        previous = {number: signal.signal(number, self._interrupt) for number in _SIGNALS}
        try:
            return super().train()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _interrupt(self, number: int, _: Any) -> None:
        if self._interrupted:
            if number == signal.SIGTERM:  # which may come twice, from a cluster and from torchrun
                return
            raise KeyboardInterrupt
        self._interrupted = True
        logger.warning("Stopping after this step, with a checkpoint; press Ctrl-C again to stop at once")


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """SOLVER.OPTIMIZER over the model's parameters.

    The backbone's learning rate is SOLVER.BACKBONE_MULTIPLIER times that of the others. CLIP_TYPE
    "full_model" clips the norm of all gradients together before every step, "norm" that of every parameter
    and "value" every number. (Detectron2's own clipping fails on parameters without a gradient, and the
    published network has some.)

    Raises:
        InputError: if the optimizer or the way of clipping is unknown.
    """
    solver = cfg.SOLVER
    parameters = get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
        lr_factor_func=lambda name: solver.BACKBONE_MULTIPLIER if "backbone" in name.split(".") else 1.0,
    )
    if not parameters:
        raise InputError("nothing to train: every parameter is frozen")
    if solver.OPTIMIZER.upper() == "ADAMW":
        optimizer = torch.optim.AdamW(parameters, solver.BASE_LR, weight_decay=solver.WEIGHT_DECAY)
    elif solver.OPTIMIZER.upper() == "SGD":
        optimizer = torch.optim.SGD(
            parameters,
            solver.BASE_LR,
            momentum=solver.MOMENTUM,
            nesterov=solver.NESTEROV,
            weight_decay=solver.WEIGHT_DECAY,
        )
    else:
        raise InputError(f"SOLVER.OPTIMIZER must be ADAMW or SGD, not '{solver.OPTIMIZER}'")
    if solver.CLIP_GRADIENTS.CLIP_TYPE not in _CLIP_TYPES:
        raise InputError(
            f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE must be one of {', '.join(_CLIP_TYPES)}, "
            f"not '{solver.CLIP_GRADIENTS.CLIP_TYPE}'"
        )
    if solver.CLIP_GRADIENTS.ENABLED:
        optimizer.register_step_pre_hook(partial(_clip_gradients, solver.CLIP_GRADIENTS))
    return optimizer


def _clip_gradients(options: CfgNode, optimizer: torch.optim.Optimizer, *_: Any) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if options.CLIP_TYPE == "full_model":
        clip_grad_norm_(parameters, options.CLIP_VALUE, options.NORM_TYPE)
    elif options.CLIP_TYPE == "norm":
        for parameter in parameters:
            clip_grad_norm_(parameter, options.CLIP_VALUE, options.NORM_TYPE)
    else:
        clip_grad_value_(parameters, options.CLIP_VALUE)


def setup(args: argparse.Namespace) -> CfgNode:
    """The frozen config of a command; makes OUTPUT_DIR and logs.

    Raises:
        InputError: if the config, a dataset or OUTPUT_DIR cannot be used.
    """
    if not args.config_file:
        raise InputError("give a config file: --config-file configs/ytvis19/seqformer_R50.yaml")
    cfg = load_config(args.config_file, args.opts)
    cfg.DATASETS.TEST = resolve_datasets(cfg.DATASETS.TEST)
    if not args.eval_only:
        cfg.DATASETS.TRAIN = resolve_datasets(cfg.DATASETS.TRAIN)
    elif not cfg.DATASETS.TEST:
        raise InputError("--eval-only needs datasets in DATASETS.TEST")
    cfg.freeze()
    try:
        setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="seqformer")
        default_setup(cfg, args)
    except OSError as error:
        raise InputError(f"OUTPUT_DIR '{cfg.OUTPUT_DIR}' cannot be written: {error.strerror}") from error
    return cfg


def main(args: argparse.Namespace) -> Any:
    """Trains, or evaluates with ``--eval-only``; returns the figures of the evaluation, if any."""
    with _one_line_errors():
        cfg = setup(args)
        logger.info("Device: %s", cfg.MODEL.DEVICE)
        if cfg.MODEL.DEVICE == "cpu":
            keep_freed_memory()
        if args.eval_only:
            model = Trainer.build_model(cfg)
            checkpointer = SeqFormerCheckpointer(model, cfg.OUTPUT_DIR, strict=True)
            rest = checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
            average = rest.get("trainer", {}).get("average")
            if cfg.SOLVER.EMA.ENABLED and average is not None:
                averaged = AveragedModel(model)
                averaged.load_state_dict(average)
                model = averaged.module
            return Trainer.test(cfg, model)
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        return trainer.train()


def command_line(arguments: Sequence[str] | None = None) -> None:
    parser = default_argument_parser()
    parser.description = "Train SeqFormer, or evaluate it with --eval-only."
    args = parser.parse_args(arguments)
    try:
        if started_by_torchrun():
            with exit_on_bad_input(), torchrun_processes(_on_cuda(args)):
                main(args)
            return
        with exit_on_bad_input():
            available = torch.cuda.device_count()
            if args.num_gpus > max(available, 1):
                raise InputError(
                    f"--num-gpus {args.num_gpus}, but there are {available} GPUs; "
                    "torchrun starts processes on CPUs"
                )
        launch(
            main,
            max(args.num_gpus, 1),
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )
    except KeyboardInterrupt:
        print("interrupted; --resume goes on from the last checkpoint", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    except ProcessExitedException as error:  # it has said why
        sys.exit(error.exit_code)


def _on_cuda(args: argparse.Namespace) -> bool:
    return bool(args.config_file) and load_config(args.config_file, args.opts).MODEL.DEVICE.startswith("cuda")


if __name__ == "__main__":
    command_line()
