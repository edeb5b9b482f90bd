#!/usr/bin/env python3
"""Trains SeqFormer, or evaluates it with ``--eval-only``.

``train_net.py --config-file FILE [--num-gpus N] [--resume] [--eval-only] [KEY VALUE ...]``
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
    SimpleTrainer,
    create_ddp_model,
    default_argument_parser,
    default_setup,
    launch,
)
from detectron2.solver.build import get_default_optimizer_params
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from seqformer.checkpoint import SeqFormerCheckpointer
from seqformer.config import load_config
from seqformer.data import build_test_loader, build_train_loader, resolve_datasets
from seqformer.errors import InputError, exit_on_bad_input
from seqformer.evaluation import YTVISEvaluator

logger = logging.getLogger("seqformer.train_net")

_INTERRUPTED = 130  # exit code, 128 + SIGINT
_CLIP_TYPES = ("full_model", "norm", "value")


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

    Ctrl-C finishes the step, saves a checkpoint that ``--resume`` goes on from, and exits; a second one
    stops at once.
    """

    def __init__(self, cfg: CfgNode):
        # Of DefaultTrainer's own __init__ the data come first here, since that is where input is wrong
        # most often; DDP and the checkpointer are made with other arguments.
        super(DefaultTrainer, self).__init__()
        cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        data_loader = self.build_train_loader(cfg)
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        on_cuda = cfg.MODEL.DEVICE.startswith("cuda")
        model = create_ddp_model(
            model,
            broadcast_buffers=False,
            find_unused_parameters=cfg.FIND_UNUSED_PARAMETERS,
            device_ids=[comm.get_local_rank()] if on_cuda else None,
        )
        mixed_precision = cfg.SOLVER.AMP.ENABLED
        trainer = AMPTrainer if mixed_precision and on_cuda else SimpleTrainer
        self._trainer = trainer(model, data_loader, optimizer)
        # On a CPU bfloat16, which needs no scaling of gradients.
        self._autocast = torch.autocast("cpu", torch.bfloat16, enabled=mixed_precision and not on_cuda)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = SeqFormerCheckpointer(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self._interrupted = False
        self.register_hooks(self.build_hooks())

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

    def run_step(self) -> None:
        with _one_line_errors(), self._autocast:
            super().run_step()

    def after_step(self) -> None:
        with _one_line_errors():
            super().after_step()
        if self._interrupted:
            if comm.is_main_process():
                self.checkpointer.save(f"model_{self.iter:07d}", iteration=self.iter)
            raise KeyboardInterrupt

    def train(self) -> Any:
        previous = signal.signal(signal.SIGINT, self._interrupt)
        try:
            return super().train()
        finally:
            signal.signal(signal.SIGINT, previous)

    def _interrupt(self, *_: Any) -> None:
        if self._interrupted:
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
        if args.eval_only:
            model = Trainer.build_model(cfg)
            checkpointer = SeqFormerCheckpointer(model, cfg.OUTPUT_DIR, strict=True)
            checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
            return Trainer.test(cfg, model)
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        return trainer.train()


def command_line(arguments: Sequence[str] | None = None) -> None:
    parser = default_argument_parser()
    parser.description = "Train SeqFormer, or evaluate it with --eval-only."
    args = parser.parse_args(arguments)
    with exit_on_bad_input():
        available = torch.cuda.device_count()
        if args.num_gpus > max(available, 1):
            raise InputError(f"--num-gpus {args.num_gpus}, but there are {available} GPUs")
    try:
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


if __name__ == "__main__":
    command_line()
