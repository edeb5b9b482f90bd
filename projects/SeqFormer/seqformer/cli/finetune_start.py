"""Where a fine-tuning starts: a model of the zoo, a file of weights, a config, or a backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from detectron2.config import CfgNode

from seqformer import model_zoo
from seqformer.checkpoints import is_address, read_config
from seqformer.cli.finetune_data import listed
from seqformer.config import load_config
from seqformer.engine.finetuning import with_values
from seqformer.errors import InputError
from seqformer.inference import model_config
from seqformer.inference.setup import classes, is_weights_file

__all__ = ["Start", "load_start"]

IMAGENET = "imagenet"


@dataclass(frozen=True)
class Start:
    """Where the training starts.

    Attributes:
        cfg: config of the model.
        names: its classes by label.
        said: what it is, for the user.
    """

    cfg: CfgNode
    names: list[str]
    said: str


def load_start(name: str, opts: Sequence[str] = ()) -> Start:
    """Returns the model to start from, on a GPU if there is one and MODEL.DEVICE is not in ``opts``.

    Args:
        name: a name in the model zoo, a file of weights, a config file, or "imagenet".
        opts: config overrides.

    Raises:
        InputError: if there is no such model.
    """
    start = _load_backbone(opts) if name == IMAGENET else _load_model_to_start(name, opts)
    if torch.cuda.is_available() and "MODEL.DEVICE" not in opts[::2]:
        # Config files for small models say cpu, where they were trained.
        return replace(start, cfg=with_values(start.cfg, {"MODEL.DEVICE": "cuda"}))
    return start


def _load_model_to_start(name: str, opts: Sequence[str]) -> Start:
    is_config = Path(name).suffix in (".yaml", ".yml") and Path(name).is_file()
    if not is_config and not is_weights_file(name) and name not in model_zoo.MODELS:
        raise InputError(
            f"no model '{name}': give {', '.join(model_zoo.MODELS)}, {IMAGENET}, a config file or weights"
        )
    if is_weights_file(name) and not is_address(name) and not Path(name).is_file():
        raise InputError(f"no file '{name}'")
    if is_weights_file(name) and read_config(name) is None:
        raise InputError(
            f"weights '{name}' have no config in them: give the config file instead, and MODEL.WEIGHTS {name}"
        )
    if is_config and not any((load_config(name, opts).MODEL.WEIGHTS, model_zoo.find_name(name))):
        cfg = load_config(name, opts)
        return Start(cfg, [], f"'{name}' with random weights, except a backbone's that it names")
    cfg = model_config(name, opts=opts) if is_config else model_config(model=name, opts=opts)
    names, _ = classes(cfg)
    return Start(cfg, names, f"'{name}', which knows {listed(names)}")


def _load_backbone(opts: Sequence[str]) -> Start:
    """Returns the small network of the shipped model, with the ImageNet weights of its backbone alone."""
    cfg = load_config(model_zoo.get_config_file(model_zoo.SHIPPED_MODEL), opts)
    backbone = cfg.MODEL.TIMM.WEIGHTS
    if not backbone and not cfg.MODEL.TIMM.PRETRAINED:
        raise InputError(
            f"'{IMAGENET}' needs the weights of {cfg.MODEL.TIMM.NAME}: MODEL.TIMM.WEIGHTS FILE "
            "(docs/own-data.md says where from), or MODEL.TIMM.PRETRAINED True to download them"
        )
    cfg.MODEL.WEIGHTS = ""
    return Start(cfg, [], f"the ImageNet weights of {cfg.MODEL.TIMM.NAME}; all else is random")
