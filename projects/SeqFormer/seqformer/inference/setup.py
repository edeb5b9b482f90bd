"""Loads the config of a trained model and the names of its classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from seqformer import model_zoo
from seqformer.checkpoints import (
    WEIGHT_SUFFIXES,
    is_address,
    local_file,
    read_category_ids,
    read_class_names,
    read_config,
)
from seqformer.config import load_config
from seqformer.data import builtin_classes
from seqformer.errors import InputError

__all__ = ["classes", "is_weights_file", "model_config"]


def model_config(
    config_file: str | Path | None = None,
    weights: str | Path | None = None,
    opts: Sequence[str] = (),
    *,
    model: str | Path | None = None,
) -> CfgNode:
    """Loads the frozen config of a trained model. MODEL.WEIGHTS is a local file; it is downloaded if needed.

    Args:
        config_file: a YAML file.
        weights: a file or address whose tensors match the config. By default MODEL.WEIGHTS of ``opts``, the
            trained weights if the config is that of a model in :data:`seqformer.model_zoo.MODELS`, or
            MODEL.WEIGHTS of the config.
        opts: config overrides, ``KEY VALUE KEY VALUE ...``.
        model: instead of ``config_file``: a name in :data:`seqformer.model_zoo.MODELS`, or a file or address
            of weights that have a config of their own. By default the shipped model.

    Raises:
        InputError: if the config, the weights or the device cannot be used.
    """
    if model is not None and config_file is not None:
        raise InputError("`model` has a config of its own: leave out `config_file`")
    weights = str(weights or dict(zip(opts[::2], opts[1::2], strict=False)).get("MODEL.WEIGHTS", ""))
    if model is None and config_file is None and not weights:
        model = model_zoo.SHIPPED_MODEL
    if model is not None and not is_weights_file(model):
        weights = weights or model_zoo.get_checkpoint_url(model)
        config_file = model_zoo.get_config_file(model)
    elif model is not None:
        if weights:
            raise InputError(f"`model` '{model}' has weights of its own: leave out `weights`")
        weights = str(model)
    elif config_file is not None and not weights and (name := model_zoo.find_name(config_file)):
        weights = model_zoo.get_checkpoint_url(name)
    source: str | Path = weights if config_file is None else config_file
    cfg = read_config(weights, opts) if config_file is None else load_config(config_file, opts)
    if cfg is None:
        raise InputError(f"weights '{weights}' need a config: give `config_file`")
    weights = weights or cfg.MODEL.WEIGHTS
    if not weights:
        raise InputError(f"no weights for config '{source}': give `weights`")
    cfg.MODEL.WEIGHTS = str(local_file(weights))
    if cfg.MODEL.META_ARCHITECTURE != "SeqFormer":
        raise InputError(f"config '{source}' is for {cfg.MODEL.META_ARCHITECTURE}, not for SeqFormer")
    try:
        torch.empty(0, device=cfg.MODEL.DEVICE)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(f"MODEL.DEVICE '{cfg.MODEL.DEVICE}' cannot be used: {reason}") from error
    cfg.freeze()
    return cfg


def is_weights_file(model: str | Path) -> bool:
    """Whether ``model`` is a file or address of weights, and not a name in the model zoo."""
    return is_address(model) or Path(model).suffix.lower() in WEIGHT_SUFFIXES


def classes(cfg: CfgNode) -> tuple[list[str], list[int]]:
    """Returns the names and dataset ids of the classes of a config with weights, by label.

    They come from the weights file, or else from the config's test set if it is published or registered.
    Otherwise classes are numbered, and ids count from 1.

    Raises:
        InputError: if the weights cannot be read.
    """
    count = cfg.MODEL.SeqFormer.NUM_CLASSES
    names = read_class_names(cfg.MODEL.WEIGHTS)
    ids = read_category_ids(cfg.MODEL.WEIGHTS)
    for dataset in cfg.DATASETS.TEST[:1]:
        if dataset in MetadataCatalog.list():
            metadata = MetadataCatalog.get(dataset)
            published = builtin_classes(dataset)
            names = names or metadata.get("thing_classes") or list(published.values())
            contiguous = metadata.get("thing_dataset_id_to_contiguous_id", {})
            ids = ids or sorted(contiguous, key=contiguous.get) or list(published)
    if len(names) != count:
        names = [f"class {label}" for label in range(count)]
    return list(names), ids if len(ids) == count else list(range(1, count + 1))
