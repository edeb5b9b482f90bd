"""Loads the config of a trained model and the names of its classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from seqformer import model_zoo
from seqformer.checkpoints import read_class_names
from seqformer.config import load_config
from seqformer.errors import InputError

__all__ = ["classes", "model_config"]


def model_config(
    config_file: str | Path, weights: str | Path | None = None, opts: Sequence[str] = ()
) -> CfgNode:
    """Loads the frozen config of a model with its weights.

    Args:
        config_file: a YAML file.
        weights: a file whose tensors match the config. By default MODEL.WEIGHTS of ``opts`` or of the config;
            the shipped model's config finds its weights.
        opts: config overrides, ``KEY VALUE KEY VALUE ...``.

    Raises:
        InputError: if the config, the weights or the device cannot be used.
    """
    cfg = load_config(config_file, opts)
    shipped = model_zoo.get_config_file(model_zoo.SHIPPED_MODEL)
    if weights:
        cfg.MODEL.WEIGHTS = str(weights)
    elif Path(config_file).resolve() == shipped.resolve() and "MODEL.WEIGHTS" not in opts[::2]:
        cfg.MODEL.WEIGHTS = str(model_zoo.get_weights_file(model_zoo.SHIPPED_MODEL))
    if not cfg.MODEL.WEIGHTS:
        raise InputError(f"no weights for config '{config_file}': give `weights`")
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
    """Returns the names and dataset ids of the classes of a config with weights, by label.

    Names come from the weights file, or else from the config's test set if it is registered; otherwise
    classes are numbered. Ids come from that test set; otherwise they count from 1.

    Raises:
        InputError: if the weights cannot be read.
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
