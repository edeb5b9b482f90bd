"""The config, the weights and the class names of a model, for commands that run one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from seqformer.checkpoints import read_class_names
from seqformer.config import load_config
from seqformer.errors import InputError

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


def classes(cfg: CfgNode) -> tuple[list[str], list[int]]:
    """Names and dataset ids of the model's classes.

    Names come from the weights file, else from the config's test set if Detectron2 knows it; otherwise
    classes are numbered.
    """
    count = cfg.MODEL.SeqFormer.NUM_CLASSES
    names = read_class_names(cfg.MODEL.WEIGHTS)
    ids = list(range(1, count + 1))
    for dataset in cfg.DATASETS.TEST[:1]:
        if dataset in MetadataCatalog.list():
            metadata = MetadataCatalog.get(dataset)
            names = names or metadata.get("thing_classes", [])
            contiguous = metadata.get("thing_dataset_id_to_contiguous_id", {})
            if len(contiguous) == count:
                ids = sorted(contiguous, key=contiguous.get)
    return (list(names) if len(names) == count else [f"class {i}" for i in range(count)]), ids
