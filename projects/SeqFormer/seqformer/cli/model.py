"""The config, the weights and the class names of a model, for commands that run one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from detectron2.config import CfgNode

from seqformer.config import load_config
from seqformer.errors import InputError
from seqformer.inference.classes import classes

__all__ = ["DEFAULT_CONFIG", "DEFAULT_WEIGHTS", "classes", "setup_cfg"]

_ROOT = Path(__file__).resolve().parents[4]  # of the repository; an installed package has no shipped model
DEFAULT_CONFIG = _ROOT / "configs/pedestrians/seqformer_effnet_lite0.yaml"
DEFAULT_WEIGHTS = _ROOT / "demo/assets/seqformer_effnet_lite0_pedestrians.safetensors"


def setup_cfg(config_file: str, weights: str | None, opts: Sequence[str]) -> CfgNode:
    """The frozen config of a command, with MODEL.WEIGHTS.

    Raises:
        InputError: if the config, the weights or the device cannot be used.
    """
    cfg = load_config(config_file, opts)
    is_default = Path(config_file).resolve() == DEFAULT_CONFIG
    if weights:
        cfg.MODEL.WEIGHTS = weights
    elif is_default and "MODEL.WEIGHTS" not in opts[::2]:
        cfg.MODEL.WEIGHTS = str(DEFAULT_WEIGHTS)
    if not cfg.MODEL.WEIGHTS:
        raise InputError(f"no weights for config '{config_file}': give --weights")
    if cfg.MODEL.META_ARCHITECTURE != "SeqFormer":
        raise InputError(f"config '{config_file}' is for {cfg.MODEL.META_ARCHITECTURE}, not for SeqFormer")
    try:
        torch.empty(0, device=cfg.MODEL.DEVICE)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(f"MODEL.DEVICE '{cfg.MODEL.DEVICE}' cannot be used: {reason}") from error
    cfg.freeze()
    return cfg
