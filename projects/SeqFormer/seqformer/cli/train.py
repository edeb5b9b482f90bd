"""Trains SeqFormer, or evaluates it with --eval-only.

    seqformer train --config-file configs/ytvis19/seqformer_R50.yaml --num-gpus 8
    seqformer train --config-file FILE --eval-only MODEL.WEIGHTS model_final.pth
    seqformer train --model released/seqformer_R50_joint --eval-only
    seqformer train --finetune pedestrians/seqformer_effnet_lite0 data.json frames --output tuned --minutes 60
    torchrun --nproc_per_node 4 --no-python seqformer train --config-file FILE

torchrun starts several processes, on GPUs or CPUs.

--finetune fits a trained model to your own data in the given time, in one process. It chooses classes, sizes,
clips and schedule from the data and the machine, evaluates before and after, and saves the model as one file
for `seqformer predict --model`. KEY VALUE pairs override what it chooses. See docs/own-data.md.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, default_setup, launch
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from torch.multiprocessing.spawn import ProcessExitedException

from seqformer import model_zoo
from seqformer.checkpoints import trust_checkpoints
from seqformer.cli.finetune import finetune
from seqformer.cli.program import add_outside_argument, add_trust_argument, program
from seqformer.config import load_config
from seqformer.data import resolve_datasets
from seqformer.engine import (
    Trainer,
    keep_freed_memory,
    load_evaluated_model,
    started_by_torchrun,
    torchrun_processes,
)
from seqformer.errors import InputError, check_number, exit_on_bad_input, name_flags
from seqformer.evaluation import YTVISEvaluator
from seqformer.formats.files import locked
from seqformer.formats.ytvis import allow_outside

__all__ = ["add_arguments", "main", "run", "train_or_evaluate"]

logger = logging.getLogger(__name__)

_INTERRUPTED = 130  # exit code, 128 + SIGINT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--config-file", metavar="FILE", help="config of the model and the training")
    model.add_argument(
        "--model",
        metavar="NAME",
        help="a model listed by `seqformer models`: its config, with its trained weights as MODEL.WEIGHTS",
    )
    model.add_argument(
        "--finetune",
        nargs=3,
        metavar=("MODEL", "JSON", "FRAMES"),
        help="fine-tune a model of `seqformer models`, a weights or config file, or imagenet (its backbone "
        "alone) on annotations in YouTube-VIS format and their folder of frames",
    )
    parser.add_argument(
        "--val",
        nargs=2,
        metavar=("JSON", "FRAMES"),
        help="with --finetune: data to evaluate on (default: a fifth of the videos is held out)",
    )
    parser.add_argument(
        "--output",
        default="output/finetuned",
        metavar="FOLDER",
        help="with --finetune: new folder for the model and all else (default: %(default)s)",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=60,
        metavar="N",
        help="with --finetune: time for everything, evaluations included (default: %(default)g)",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="resume from the last checkpoint in OUTPUT_DIR, if there is one",
    )
    parser.add_argument("--eval-only", action="store_true", help="evaluate on DATASETS.TEST without training")
    parser.add_argument(
        "--num-gpus", type=int, default=1, metavar="N", help="GPUs per machine (default: %(default)s)"
    )
    parser.add_argument(
        "--num-machines", type=int, default=1, metavar="N", help="number of machines (default: %(default)s)"
    )
    parser.add_argument(
        "--machine-rank",
        type=int,
        default=0,
        metavar="RANK",
        help="number of this machine, from 0 (default: %(default)s)",
    )
    parser.add_argument(
        "--dist-url",
        default=default_argument_parser().get_default("dist_url"),
        metavar="URL",
        help="rendezvous address for multi-machine training (default: %(default)s)",
    )
    add_trust_argument(parser)
    add_outside_argument(parser)
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config overrides")


@contextmanager
def setup(args: argparse.Namespace) -> Iterator[CfgNode]:
    """Yields the frozen config. Creates OUTPUT_DIR, locks it and starts logging.

    Raises:
        InputError: if the config, a dataset or OUTPUT_DIR cannot be used.
    """
    cfg = load_config(args.config_file, args.opts)
    cfg.DATASETS.TEST = resolve_datasets(cfg.DATASETS.TEST)
    if not args.eval_only:
        cfg.DATASETS.TRAIN = resolve_datasets(cfg.DATASETS.TRAIN)
    elif not cfg.DATASETS.TEST:
        raise InputError("--eval-only needs datasets in DATASETS.TEST")
    cfg.freeze()
    folder = f"OUTPUT_DIR '{cfg.OUTPUT_DIR}'"
    with locked(Path(cfg.OUTPUT_DIR, ".lock"), folder) if comm.is_main_process() else nullcontext():
        try:
            setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="seqformer")
            default_setup(cfg, args)
            logging.raiseExceptions = (
                False  # a full disk must not end in a traceback for each line of the log
            )
        except OSError as error:
            raise InputError(f"{folder} cannot be written: {error.strerror}") from error
        yield cfg


def train_or_evaluate(cfg: CfgNode, *, resume: bool = False, eval_only: bool = False) -> Any:
    """Trains the model of a config, or evaluates it.

    Results go to OUTPUT_DIR/inference/DATASET/results.json.

    Args:
        cfg: the config; DATASETS.TRAIN and DATASETS.TEST are registered names.
        resume: resume from the last checkpoint in OUTPUT_DIR, if there is one.
        eval_only: evaluate on DATASETS.TEST without training.

    Returns:
        The metrics, as :meth:`seqformer.engine.Trainer.test` returns them. After training, only if the config
        has TEST.EXPECTED_RESULTS.

    Raises:
        InputError: if an option, a file or the weights cannot be used.
    """

    threshold = cfg.TEST.TRACKING_SCORE_THRESHOLD
    with name_flags({"threshold": "TEST.TRACKING_SCORE_THRESHOLD"}):
        check_number("threshold", threshold, at_least=0, at_most=1)

    def make_evaluator(dataset_name: str) -> YTVISEvaluator:
        return YTVISEvaluator(
            dataset_name,
            Path(cfg.OUTPUT_DIR, "inference", dataset_name),
            tracking_metrics=cfg.TEST.TRACKING_METRICS,
            score_threshold=threshold,
        )

    if eval_only:
        model = load_evaluated_model(cfg, resume=resume)
        return Trainer.test(cfg, model, [make_evaluator(name) for name in cfg.DATASETS.TEST])
    trainer = Trainer(cfg, make_evaluator)
    trainer.resume_or_load(resume=resume)
    return trainer.train()


def _process(args: argparse.Namespace) -> None:
    """Trains or evaluates in one process."""
    with (
        exit_on_bad_input(),
        trust_checkpoints(args.trust_checkpoint),
        allow_outside(args.allow_outside),
        setup(args) as cfg,
    ):
        logger.info("Device: %s", cfg.MODEL.DEVICE)
        if cfg.MODEL.DEVICE == "cpu":
            keep_freed_memory()
        train_or_evaluate(cfg, resume=args.resume, eval_only=args.eval_only)


def run(args: argparse.Namespace) -> int | None:
    """Starts the processes. Returns an exit code if one fails or is interrupted.

    Raises:
        InputError: if the options cannot be used.
    """
    if args.model:
        args.config_file = str(model_zoo.get_config_file(args.model))
        args.opts = ["MODEL.WEIGHTS", model_zoo.get_checkpoint_url(args.model), *args.opts]
    if args.finetune:
        return _finetune(args)
    if args.val:
        raise InputError("--val is for --finetune: give DATASETS.TEST")
    if not args.config_file:
        raise InputError("no config file: give --config-file configs/ytvis19/seqformer_R50.yaml")
    try:
        if started_by_torchrun():
            on_cuda = load_config(args.config_file, args.opts).MODEL.DEVICE.startswith("cuda")
            with torchrun_processes(on_cuda):
                _process(args)
            return None
        available = torch.cuda.device_count()
        if args.num_gpus > max(available, 1):
            raise InputError(
                f"--num-gpus {args.num_gpus}, but there are {available} GPUs; "
                "torchrun starts processes on CPUs"
            )
        launch(
            _process,
            max(args.num_gpus, 1),
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )
    except KeyboardInterrupt:
        print("interrupted; continue from the last checkpoint with --resume", file=sys.stderr)
        return _INTERRUPTED
    except ProcessExitedException as error:  # the process has printed its error
        return error.exit_code
    return None


def _finetune(args: argparse.Namespace) -> int | None:
    if args.resume or args.eval_only or args.num_gpus != 1 or started_by_torchrun():
        raise InputError("--finetune has one process, and no --resume, --eval-only or --num-gpus")
    try:
        with allow_outside(args.allow_outside):
            finetune(args)
    except KeyboardInterrupt:
        config = Path(args.output, "config.yaml")
        more = f"; continue with `seqformer train --config-file {config} --resume`" * config.is_file()
        print(f"interrupted{more}", file=sys.stderr)
        return _INTERRUPTED
    return None


main = program(add_arguments, run, __doc__)
