"""Builds the optimizer of a config: learning rates, weight decay and gradient clipping."""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver.build import get_default_optimizer_params
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from seqformer.dependencies import import_timm
from seqformer.errors import InputError

__all__ = ["build_optimizer"]

_CLIP_TYPES = ("full_model", "norm", "value")


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Builds SOLVER.OPTIMIZER for the model's parameters.

    The backbone's learning rate is SOLVER.BACKBONE_MULTIPLIER times that of other parameters. "MUON" (Jordan
    et al. 2024, with update sizes of Liu et al. 2025, arXiv:2502.16982) is for linear layers; AdamW trains
    everything else with SOLVER.MUON.ADAMW_FACTOR times the learning rate. Before every
    step, CLIP_TYPE "full_model" clips the norm of all gradients together, "norm" that of each parameter, and
    "value" every element. (Detectron2's own clipping fails on parameters without a gradient, which the
    published network has.)

    Raises:
        InputError: if the optimizer or the clipping type is unknown, or all parameters are frozen.
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
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            parameters, solver.BASE_LR, weight_decay=solver.WEIGHT_DECAY
        )
    elif solver.OPTIMIZER.upper() == "MUON":
        optimizer = _muon(cfg, model, parameters)
    elif solver.OPTIMIZER.upper() == "SGD":
        optimizer = torch.optim.SGD(
            parameters,
            solver.BASE_LR,
            momentum=solver.MOMENTUM,
            nesterov=solver.NESTEROV,
            weight_decay=solver.WEIGHT_DECAY,
        )
    else:
        raise InputError(f"SOLVER.OPTIMIZER must be ADAMW, MUON or SGD, not '{solver.OPTIMIZER}'")
    if solver.CLIP_GRADIENTS.CLIP_TYPE not in _CLIP_TYPES:
        raise InputError(
            f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE must be one of {', '.join(_CLIP_TYPES)}, "
            f"not '{solver.CLIP_GRADIENTS.CLIP_TYPE}'"
        )
    if solver.CLIP_GRADIENTS.ENABLED:
        optimizer.register_step_pre_hook(partial(_clip_gradients, solver.CLIP_GRADIENTS))
    return optimizer


def _muon(cfg: CfgNode, model: nn.Module, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Returns Muon for the linear layers of the network, and AdamW for everything else.

    Muon is made for hidden layers, so not for embeddings, classes and boxes ("..._embed"), convolutions or
    small outputs. The backbone has been trained with another optimizer and keeps to AdamW.
    """
    try:
        import_timm()
        muon = importlib.import_module("timm.optim").Muon
    except (ImportError, AttributeError) as error:
        raise InputError("SOLVER.OPTIMIZER MUON needs timm 1.0.21 or newer: pip install -U timm") from error
    hidden = {
        parameter
        for name, parameter in model.named_parameters()
        if parameter.ndim == 2 and min(parameter.shape) >= 32
        if "embed" not in name and "backbone" not in name.split(".")
    }
    split = []
    for group in groups:
        of_muon = [parameter for parameter in group["params"] if parameter in hidden]
        others = [parameter for parameter in group["params"] if parameter not in hidden]
        slower = group.get("lr", cfg.SOLVER.BASE_LR) * cfg.SOLVER.MUON.ADAMW_FACTOR
        if of_muon:
            split.append({**group, "params": of_muon})
        if others:
            split.append({**group, "params": others, "lr": slower, "use_fallback": True})
    optimizer: torch.optim.Optimizer = muon(
        split,
        cfg.SOLVER.BASE_LR,
        weight_decay=cfg.SOLVER.WEIGHT_DECAY,
        nesterov=True,
        adjust_lr_fn="match_rms_adamw",
        betas=(0.9, 0.999),
    )
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
