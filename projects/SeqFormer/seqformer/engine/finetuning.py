"""Chooses the settings of a fine-tuning from the data, the machine and the time."""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from detectron2.config import CfgNode

from seqformer.data import DatasetFigures
from seqformer.engine.trainer import Trainer
from seqformer.errors import InputError

__all__ = ["Speed", "choose_batch", "choose_clips", "choose_schedule", "choose_sizes", "measure_speed"]

MASK_STRIDE = 4  # pixels
CELLS_WANTED, CELLS_LEAST = 10, 4  # cells of masks along the short side of the median instance
MOST_ENLARGED = 2.0  # frames are enlarged at most this much
CLIPS_WANTED = 800  # of a training; below, frames are made smaller
FEWEST_STEPS = 10
SIZE_STEP = 32  # pixels, what frames are padded to a multiple of
CPU_HEADROOM = 2  # most steps, relative to the expected number
GPU_HEADROOM = 10  # whose speed is measured with smaller batches
_PROBED_SHORT_SIDE = 256
_PROBED_STEPS = 4
_LONGEST_WHOLE = 50  # frames of a video that is one clip
_CLIP_LENGTH = 10  # of longer videos
_EVALUATION_COST = 0.5  # time per frame in evaluation, relative to training
_MEMORY_SHARE = 0.6
_LARGEST_BATCH = 16  # clips, on a GPU
_CPU_BATCH = 2
_LINE_SECONDS = 20.0  # between lines of metrics


@dataclass(frozen=True)
class Speed:
    """What a few steps of training took.

    Attributes:
        seconds: per million pixels of training frames, padding included.
        bytes: of memory per pixel; 0 if unknown.
        memory: bytes that training may use.
    """

    seconds: float
    bytes: float
    memory: float


def clip_pixels(figures: DatasetFigures, short_side: int, num_frames: int) -> int:
    """Returns the pixels of a clip of the median size, padding included."""
    scale = short_side / min(figures.height, figures.width)
    sides = (SIZE_STEP * math.ceil(side * scale / SIZE_STEP) for side in (figures.height, figures.width))
    return math.prod(sides) * num_frames


def cells(figures: DatasetFigures, short_side: int) -> float:
    """Returns how many cells of its mask the median instance has along its short side."""
    return figures.short_side * short_side / min(figures.height, figures.width) / MASK_STRIDE


def choose_clips(cfg: CfgNode, figures: DatasetFigures) -> tuple[dict[str, Any], str]:
    """Chooses the frames of clips in training, and whether a video is one clip in inference.

    Returns:
        config values by key, and what was chosen and why.
    """
    num_frames = cfg.INPUT.SAMPLING_FRAME_NUM
    num_frames = min(num_frames if num_frames > 1 else 3, max(1, int(figures.median_length)))
    values: dict[str, Any] = {"INPUT.SAMPLING_FRAME_NUM": num_frames}
    lengths = f"videos have {figures.shortest} to {figures.longest} frames"
    options = cfg.MODEL.SeqFormer
    if options.CLIP_MATCHING:
        distance = max(1, num_frames // 2)
        values |= {
            "MODEL.SeqFormer.CLIP_LENGTH": num_frames,
            "MODEL.SeqFormer.CLIP_STRIDE": 1,
            "INPUT.SAMPLING_FRAME_RANGE": distance,
        }
        how = f"{num_frames} consecutive frames, as the model's own"
    elif figures.median_length <= _LONGEST_WHOLE:
        distance = max(1, figures.longest - 1)
        values["INPUT.SAMPLING_FRAME_RANGE"] = distance
        how = f"{num_frames} frames from anywhere in a video, since a whole video is one clip in inference"
    else:
        values |= {
            "MODEL.SeqFormer.CLIP_MATCHING": True,
            "MODEL.SeqFormer.CLIP_LENGTH": _CLIP_LENGTH,
            "MODEL.SeqFormer.CLIP_STRIDE": _CLIP_LENGTH // 2,
            "INPUT.SAMPLING_FRAME_RANGE": _CLIP_LENGTH - 1,
        }
        how = f"{num_frames} frames at most {_CLIP_LENGTH - 1} apart; inference in clips of {_CLIP_LENGTH}"
    return values, f"{how} ({lengths})"


def size_values(figures: DatasetFigures, short_side: int) -> dict[str, Any]:
    """Returns the config values of a size of frames. Training uses slightly smaller ones as well."""
    longest = SIZE_STEP * math.ceil(short_side * figures.aspect / SIZE_STEP)
    smaller = round(0.85 * short_side)
    return {
        "INPUT.MIN_SIZE_TRAIN": (smaller, short_side),
        "INPUT.MIN_SIZE_TRAIN_SAMPLING": "range_by_clip",
        "INPUT.MAX_SIZE_TRAIN": longest,
        "INPUT.MIN_SIZE_TEST": short_side,
        "INPUT.MAX_SIZE_TEST": longest,
        "INPUT.CROP.ENABLED": False,
        "INPUT.RANDOM_FLIP": "flip_by_clip",
        "INPUT.AUGMENTATIONS": ["brightness", "contrast", "saturation"],
    }


def solver_values(cfg: CfgNode, batch: int) -> dict[str, Any]:
    """Returns the config values of the optimizer: those of the small models that were trained here."""
    width = cfg.MODEL.SeqFormer.HIDDEN_DIM
    values: dict[str, Any] = {
        "SOLVER.OPTIMIZER": "ADAMW",
        "SOLVER.IMS_PER_BATCH": batch,
        "SOLVER.BASE_LR": round(2e-4 * min(1.0, 128 / width) * math.sqrt(batch / _CPU_BATCH), 6),
        "SOLVER.BACKBONE_MULTIPLIER": 0.1,
        "SOLVER.WEIGHT_DECAY": 1e-4,
        "SOLVER.LR_SCHEDULER_NAME": "WarmupCosineLR",
        "SOLVER.CLIP_GRADIENTS.ENABLED": True,
        "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "full_model",
        "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": 0.1,
        "SOLVER.EMA.ENABLED": True,
        "DATALOADER.NUM_WORKERS": 1 if cfg.MODEL.DEVICE == "cpu" else 4,
        "TEST.EVAL_PERIOD": 0,
    }
    if cfg.MODEL.DEVICE != "cpu" or _cpu_has_bfloat16():
        values |= {"SOLVER.AMP.ENABLED": True, "SOLVER.AMP.DTYPE": "bfloat16"}
    return values


def measure_speed(cfg: CfgNode, figures: DatasetFigures) -> Speed:
    """Trains a few steps on small frames.

    Args:
        cfg: the config, with the registered datasets.
        figures: those of the training set.

    Raises:
        InputError: if the training cannot start; see :class:`Trainer`.
    """
    short_side = min(_PROBED_SHORT_SIDE, cfg.INPUT.MIN_SIZE_TEST)
    on_cuda = cfg.MODEL.DEVICE.startswith("cuda")
    with TemporaryDirectory() as folder:
        values = size_values(figures, short_side) | solver_values(cfg, 1)
        values |= {"INPUT.MIN_SIZE_TRAIN": (short_side,), "INPUT.MIN_SIZE_TRAIN_SAMPLING": "choice"}
        values |= {"SOLVER.MAX_ITER": _PROBED_STEPS, "SOLVER.CHECKPOINT_PERIOD": _PROBED_STEPS}
        values |= {"DATASETS.TEST": (), "OUTPUT_DIR": folder, "LOG_PERIOD": _PROBED_STEPS}
        probe = with_values(cfg, values)
        before = _peak_memory(on_cuda)
        trainer = Trainer(probe, _no_evaluator)
        trainer.resume_or_load(resume=False)
        trainer.train()
        used = _peak_memory(on_cuda) - before
    times = [seconds for seconds, _ in trainer.storage.history("time").values()]
    pixels = clip_pixels(figures, short_side, cfg.INPUT.SAMPLING_FRAME_NUM)
    return Speed(
        1e6 * sum(times[1:]) / len(times[1:]) / pixels, used / pixels, _MEMORY_SHARE * _memory(on_cuda)
    )


def choose_batch(cfg: CfgNode, pixels: int, speed: Speed) -> int:
    """Returns the clips of a step: 2 on a CPU; on a GPU a power of two that fits the memory."""
    if cfg.MODEL.DEVICE == "cpu":
        return _CPU_BATCH
    fitting = speed.memory / max(1.0, speed.bytes * pixels)
    return 2 ** int(math.log2(min(max(fitting, 1), _LARGEST_BATCH)))


def choose_sizes(
    cfg: CfgNode, figures: DatasetFigures, speed: Speed, seconds: float
) -> tuple[int, list[str]]:
    """Chooses the short side of frames.

    The median instance should have 10 cells of its mask along its short side, but training should also see
    at least 800 clips in its time, and fit the memory.

    Args:
        cfg: the config with the size that the model was trained with, and the frames of a clip.
        figures: those of the data.
        speed: from :func:`measure_speed`.
        seconds: time for the training.

    Returns:
        the short side in pixels, and what was chosen and why.
    """
    native = min(figures.height, figures.width)

    def size_for(number: float) -> int:
        wanted = number * MASK_STRIDE / figures.short_side * native
        return SIZE_STEP * math.ceil(min(wanted, MOST_ENLARGED * native) / SIZE_STEP)

    wanted = max(
        size_for(CELLS_WANTED), min(cfg.INPUT.MIN_SIZE_TEST, SIZE_STEP * math.ceil(native / SIZE_STEP))
    )
    least = min(wanted, max(size_for(CELLS_LEAST), 4 * SIZE_STEP))

    def affordable(size: int) -> bool:
        pixels = clip_pixels(figures, size, cfg.INPUT.SAMPLING_FRAME_NUM)
        clips = seconds / (speed.seconds * pixels / 1e6)
        in_memory = speed.bytes * pixels * (1 if cfg.MODEL.DEVICE != "cpu" else _CPU_BATCH) <= speed.memory
        return clips >= CLIPS_WANTED and in_memory

    size = next((size for size in range(wanted, least, -SIZE_STEP) if affordable(size)), least)
    number = cells(figures, size)
    said = [
        f"short side of {size} pixels, of {native:.0f}: along the short side of the median instance, "
        f"{figures.short_side:.0f} pixels, its mask has {number:.1f} cells ({CELLS_WANTED} are wanted)"
    ]
    if size < wanted:
        said.append(f"{wanted} pixels would be better, but time or memory do not allow it")
    if number < CELLS_WANTED / 2:
        said.append(
            "warning: instances are tiny, so masks will be coarse or missed: crop the frames to where the "
            "instances are, give more --minutes, or use a GPU"
        )
    return size, said


def choose_schedule(batch_seconds: float, seconds: float) -> dict[str, Any]:
    """Chooses the number of steps, and what depends on it.

    Args:
        batch_seconds: expected time of a step.
        seconds: time for the training.

    Raises:
        InputError: if there is time for a few steps only.
    """
    steps = int(seconds / batch_seconds)
    if steps < FEWEST_STEPS:
        missing = FEWEST_STEPS * batch_seconds - seconds
        raise InputError(
            f"`minutes` are too few: a step takes about {batch_seconds:.1f} s, and {max(0.0, seconds):.0f} s "
            f"are left for training; give at least {math.ceil(missing / 60)} more"
        )
    return {
        "SOLVER.MAX_ITER": steps,
        "SOLVER.WARMUP_ITERS": max(1, min(100, steps // 20)),
        "SOLVER.CHECKPOINT_PERIOD": max(1, steps // 3 + 1),
        "SOLVER.EMA.DECAY": round(min(0.999, max(0.8, 1 - 20 / steps)), 4),
        "LOG_PERIOD": max(1, min(20, int(_LINE_SECONDS / batch_seconds))),
    }


def evaluation_seconds(figures: DatasetFigures, short_side: int, num_frames: int, speed: Speed) -> float:
    """Returns the expected time to evaluate ``num_frames`` frames once."""
    pixels = clip_pixels(figures, short_side, num_frames)
    return _EVALUATION_COST * speed.seconds * pixels / 1e6


def with_values(cfg: CfgNode, values: Mapping[str, Any]) -> CfgNode:
    """Returns a copy of a config with other values, not frozen."""
    changed = cfg.clone()
    changed.defrost()
    changed.merge_from_list([item for pair in values.items() for item in pair])
    return changed


def _cpu_has_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16, without which it is slower than float32."""
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


def _no_evaluator(name: str) -> Any:
    raise AssertionError(f"nothing is evaluated here, but '{name}'")


def _peak_memory(on_cuda: bool) -> float:
    if on_cuda:
        return float(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _memory(on_cuda: bool) -> float:
    """Returns the bytes of memory that are available."""
    if on_cuda:
        return float(torch.cuda.mem_get_info()[0])
    try:
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
        lines = dict(line.split(":", 1) for line in text.splitlines())
        return 1024 * float(lines["MemAvailable"].split()[0])
    except (OSError, KeyError):
        return math.inf
