"""`seqformer train --finetune`: fits a trained model to one's own data in a given time."""

from __future__ import annotations

import argparse
import logging
import math
import shutil
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger
from tabulate import tabulate

from seqformer.checkpoints import (
    SeqFormerCheckpointer,
    export_weights,
    read_state,
    start_weights,
    to_published,
    trust_checkpoints,
    write_state,
)
from seqformer.cli.finetune_data import count_frames, listed, load_data
from seqformer.cli.finetune_start import Start, load_start
from seqformer.data import DatasetFigures, resolve_datasets, select_videos
from seqformer.engine import Trainer, keep_freed_memory
from seqformer.engine.finetuning import (
    CPU_HEADROOM,
    GPU_HEADROOM,
    Speed,
    choose_batch,
    choose_clips,
    choose_schedule,
    choose_sizes,
    clip_pixels,
    evaluation_seconds,
    measure_speed,
    size_values,
    solver_values,
    with_values,
)
from seqformer.errors import InputError, check_number, name_flags
from seqformer.evaluation import Evaluation, YTVISEvaluator, evaluate
from seqformer.formats.files import replaced_when_complete, write_json
from seqformer.formats.ytvis import Dataset, write_ytvis

__all__ = ["finetune"]

_SEED = 1
_QUERIES_PER_INSTANCE = 3
_MOST_AT_ONCE = 10  # instances of a clip in inference
_EVALUATION_SHARE = 0.1  # of the time, for one evaluation
_LAST_SECONDS = 10.0  # to save the model
_MOST_MINUTES = 60 * 24 * 100
_OWN_KEYS = ("MODEL.WEIGHTS", "DATASETS.TRAIN", "DATASETS.TEST", "OUTPUT_DIR")
_QUIET = (
    "detectron2.checkpoint.detection_checkpoint",
    "detectron2.data.build",
    "detectron2.data.common",
    "detectron2.engine.defaults",
    "detectron2.evaluation.testing",
    "fvcore.common.checkpoint",
)
_COLUMNS = ("AP", "AP50", "AR10", "AR100")


def finetune(args: argparse.Namespace) -> None:
    """Fine-tunes a model, prints a table of before and after, and saves everything in a new folder.

    Args:
        args: finetune (model, JSON, folder of frames), val (JSON, folder) or None, output, minutes, opts and
            trust_checkpoint.

    Raises:
        InputError: if the model, the data or an option cannot be used.
    """
    began = time.perf_counter()
    name, json_file, frames = args.finetune
    output = Path(args.output)
    with name_flags({"minutes": "--minutes"}), trust_checkpoints(args.trust_checkpoint):
        check_number("minutes", args.minutes, above=0, at_most=_MOST_MINUTES)
        if output.exists():
            raise InputError(f"'{output}' exists: remove it or choose another --output")
        for key in args.opts[::2]:
            if key in _OWN_KEYS[1:]:
                raise InputError(f"{key} cannot be set: --finetune takes data and --output")
        start = load_start(name, args.opts)
        train, val, figures = load_data((json_file, frames), args.val, _SEED)
        _Finetuning(args, began, output, start, train, val, figures).run()


class _Finetuning:
    """One fine-tuning, from the chosen settings to the table.

    Args:
        args: see :func:`finetune`.
        began: when the command began, in seconds of ``time.perf_counter``.
        output: the folder to create.
        start: the model to start from.
        train, val: the data.
        figures: those of both together.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        began: float,
        output: Path,
        start: Start,
        train: Dataset,
        val: Dataset,
        figures: DatasetFigures,
    ):
        self.opts: list[str] = [
            item
            for pair in zip(args.opts[::2], args.opts[1::2], strict=True)
            if pair[0] not in _OWN_KEYS
            for item in pair
        ]
        self.began = began
        self.seconds = 60 * args.minutes
        self.output = output
        self.start = start
        self.train, self.val = train, val
        self.frames = Path(args.finetune[2]).resolve()
        self.val_frames = Path(args.val[1]).resolve() if args.val else self.frames
        self.figures = figures

    def run(self) -> None:
        """See :func:`finetune`."""
        names = list(self.train.names.values())
        if self.start.cfg.MODEL.DEVICE == "cpu":
            keep_freed_memory()
        print(f"start: {self.start.said}", flush=True)
        try:
            self.output.mkdir(parents=True)
        except OSError as error:
            raise InputError(f"'{self.output}' cannot be written: {error.strerror}") from error
        done = False
        try:
            _set_up_log(self.output)
            cfg = self._base_config(names)
            write_ytvis(self.output / "train.json", self.train)
            cfg.DATASETS.TRAIN = (f"ytvis:{(self.output / 'train.json').resolve()}:{self.frames}",)
            registered = with_values(cfg, {"DATASETS.TRAIN": resolve_datasets(cfg.DATASETS.TRAIN)})
            print("measuring the speed of training on small frames ...", flush=True)
            speed = measure_speed(registered, self.figures)
            cfg, on_time = self._schedule(cfg, speed)
            done = True
        finally:
            if not done:
                _remove_made(self.output)
        self._train(cfg, on_time)

    def _base_config(self, names: list[str]) -> CfgNode:
        """Returns the config without what depends on speed, and writes the weights to start from."""
        options = self.start.cfg.MODEL.SeqFormer
        needed = _QUERIES_PER_INSTANCE * min(self.figures.most_at_once, self.figures.most_in_video)
        queries = max(options.NUM_OBJECT_QUERIES, needed)
        clips, why = choose_clips(self.start.cfg, self.figures)
        print(f"clips: {why}")
        print(
            f"queries: {queries}, for up to {self.figures.most_at_once} instances at once"
            + (f"; the model had {options.NUM_OBJECT_QUERIES}" * (queries > options.NUM_OBJECT_QUERIES))
        )
        if self.figures.most_at_once > _MOST_AT_ONCE:
            print(f"warning: of more than {_MOST_AT_ONCE} instances at once, some will not be found")
        values = clips | {
            "MODEL.SeqFormer.NUM_CLASSES": len(names),
            "MODEL.SeqFormer.NUM_OBJECT_QUERIES": queries,
            "SEED": _SEED,
            "OUTPUT_DIR": str(self.output),
        }
        cfg = self._with(self.start.cfg, values)
        cfg.MODEL.WEIGHTS = self._write_start(names, cfg.MODEL.SeqFormer.NUM_OBJECT_QUERIES)
        return cfg

    def _write_start(self, names: list[str], num_queries: int) -> str:
        weights = self.start.cfg.MODEL.WEIGHTS
        if not weights:
            return ""
        old = self.start.names
        state = to_published(read_state(weights), len(old)).state
        known = [name for name in names if name.lower() in {other.lower() for other in old}]
        new = [name for name in names if name not in known]
        if new:
            print(
                f"class head: re-initialised for {listed(new)} with the mean of the model's classes"
                + (f"; kept for {listed(known)}" if known else "")
            )
        path = self.output / "start.safetensors"
        write_state(path, start_weights(state, old, names, num_queries, _SEED))
        return str(path.resolve())

    def _schedule(self, cfg: CfgNode, speed: Speed) -> tuple[CfgNode, bool]:
        """Chooses what depends on speed. Returns the config, and whether the training ends on time."""
        figures, num_frames = self.figures, cfg.INPUT.SAMPLING_FRAME_NUM
        left = self._left() - _LAST_SECONDS
        size, why = choose_sizes(cfg, figures, speed, left * (1 - 2 * _EVALUATION_SHARE))
        if "INPUT.MIN_SIZE_TEST" in self.opts[::2]:
            size, why = cfg.INPUT.MIN_SIZE_TEST, ["as you say"]
        cfg = self._with(cfg, size_values(figures, size))
        print("frames: " + "\n        ".join(why))
        self._limit_evaluation(lambda frames: evaluation_seconds(figures, size, frames, speed), left)
        evaluation = evaluation_seconds(figures, size, count_frames(self.val), speed)
        pixels = clip_pixels(figures, size, num_frames)
        cfg = self._with(cfg, solver_values(cfg, choose_batch(cfg, pixels, speed)))
        step = cfg.SOLVER.IMS_PER_BATCH * speed.seconds * pixels / 1e6
        on_time = "SOLVER.MAX_ITER" not in self.opts[::2]
        seconds = left - 2 * evaluation if on_time else cfg.SOLVER.MAX_ITER * step
        cfg = self._with(cfg, choose_schedule(step, seconds) if on_time or seconds >= 10 * step else {})
        write_ytvis(self.output / "val.json", self.val)
        cfg.DATASETS.TEST = (f"ytvis:{(self.output / 'val.json').resolve()}:{self.val_frames}",)
        total = 2 * evaluation + seconds + _LAST_SECONDS
        end = datetime.now() + timedelta(seconds=total)
        print(
            f"training: about {cfg.SOLVER.MAX_ITER} steps of {cfg.SOLVER.IMS_PER_BATCH} clips, "
            f"{step:.2f} s each, on {cfg.MODEL.DEVICE}\n"
            f"evaluation: {count_frames(self.val)} frames before and after, {_minutes(evaluation)} each\n"
            f"expected end: {end:%H:%M}, in {_minutes(total)}",
            flush=True,
        )
        return cfg, on_time

    def _limit_evaluation(self, cost: Callable[[int], float], left: float) -> None:
        """Leaves out videos of the validation part whose evaluation would take too long."""
        kept: list[int] = []
        frames = 0
        for id_, video in self.val.videos.items():
            if kept and cost(frames + video.length) > _EVALUATION_SHARE * left:
                continue
            kept.append(id_)
            frames += video.length
        if len(kept) < len(self.val.videos):
            print(f"evaluation: {len(kept)} of {len(self.val.videos)} videos, since all would take too long")
            self.val = select_videos(self.val, kept)

    def _train(self, cfg: CfgNode, on_time: bool) -> None:
        _write_config(self.output / "config.yaml", cfg)
        registered = with_values(cfg, {})
        registered.DATASETS.TRAIN = resolve_datasets(cfg.DATASETS.TRAIN)
        registered.DATASETS.TEST = resolve_datasets(cfg.DATASETS.TEST)
        registered.freeze()
        name = registered.DATASETS.TEST[0]
        seed_all_rng(_SEED)

        print("evaluation before training", flush=True)
        evaluating = time.perf_counter()
        before = self.output / "inference" / "before"
        Trainer.test(registered, _load_model(registered), [YTVISEvaluator(name, before)])
        evaluating = time.perf_counter() - evaluating

        seconds = self._left() - 1.1 * evaluating - _LAST_SECONDS if on_time else None
        if on_time:
            # Of these, as many steps are done as there is time for. The share of the warmup stays the same.
            headroom = CPU_HEADROOM if cfg.MODEL.DEVICE == "cpu" else GPU_HEADROOM
            steps = {key: headroom * cfg.SOLVER[key] for key in ("MAX_ITER", "WARMUP_ITERS")}
            registered = with_values(registered, {f"SOLVER.{key}": value for key, value in steps.items()})
            registered.freeze()
        after = self.output / "inference" / "after"
        trainer = Trainer(registered, lambda name: YTVISEvaluator(name, after), seconds=seconds)
        trainer.resume_or_load(resume=False)
        print("training", flush=True)
        trainer.train()
        cfg.SOLVER.MAX_ITER = trainer.max_iter
        _write_config(self.output / "config.yaml", cfg)

        names = MetadataCatalog.get(name).thing_classes
        model = self.output / "model.safetensors"
        checkpoint = self.output / "model_final.pth"
        export_weights(checkpoint, model, names, average=cfg.SOLVER.EMA.ENABLED, cfg=cfg)
        evaluations = [
            evaluate(self.output / "val.json", folder / "results.json") for folder in (before, after)
        ]
        write_json(
            self.output / "evaluation.json",
            {key: result.to_json() for key, result in zip(("before", "after"), evaluations, strict=True)},
        )
        for path in self.output.glob("model_[0-9]*.pth"):
            path.unlink()
        took = _minutes(time.perf_counter() - self.began)
        print(f"\n{_table(*evaluations)}\n\n{trainer.max_iter} steps; {took} in all")
        print(f"try it: seqformer predict VIDEO --model {model} --output out.mp4")

    def _with(self, cfg: CfgNode, values: Mapping[str, Any]) -> CfgNode:
        """Returns a copy of a config with other values, except where the user has given one."""
        return with_values(with_values(cfg, values), dict(zip(self.opts[::2], self.opts[1::2], strict=True)))

    def _left(self) -> float:
        return self.seconds - (time.perf_counter() - self.began)


def _load_model(cfg: CfgNode) -> Any:
    model = Trainer.build_model(cfg)
    SeqFormerCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    return model


def _set_up_log(folder: Path) -> None:
    """Logs into the folder and on the terminal, without the text of the network and the config."""
    for name in ("detectron2", "fvcore", "seqformer"):
        setup_logger(str(folder), name=name, abbrev_name=name)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def _remove_made(folder: Path) -> None:
    """Removes what was made before the training could begin."""
    shutil.rmtree(folder, ignore_errors=True)


def _write_config(path: Path, cfg: CfgNode) -> None:
    with replaced_when_complete(path) as part:
        part.write_text(cfg.dump(), encoding="utf-8")


def _table(before: Evaluation, after: Evaluation) -> str:
    rows = [("all classes", before.class_averaged, after.class_averaged)]
    rows += [
        (after.category_names[id_], before.categories[id_], figures)
        for id_, figures in after.categories.items()
    ]
    cells = [
        [name, *(_text(figures[column]) for column in _COLUMNS for figures in (first, last))]
        for name, first, last in rows[: 1 if len(rows) == 2 else None]
    ]
    header = ["", *(f"{column} {when}" for column in _COLUMNS for when in ("before", "after"))]
    said = "; ".join(
        f"{when}: {evaluation.id_switches.covered} of {evaluation.id_switches.instances} instances found, "
        f"{evaluation.id_switches.switches} ID switches"
        for when, evaluation in (("before", before), ("after", after))
    )
    return tabulate(cells, header, "pipe", disable_numparse=True) + f"\n\n{said}"


def _text(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}"


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
