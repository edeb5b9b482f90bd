"""Weights in the layouts of other projects, made from a model of this one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

_STAGES = {f"res{stage + 1}.": f"layer{stage}." for stage in range(1, 5)}


def torchvision_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns a backbone with torchvision's names if it is a ResNet, with counters of batch norm."""
    named = {}
    for name, tensor in state.items():
        name = name.replace("stem.conv1.norm.", "bn1.").replace("stem.conv1.", "conv1.")
        name = name.replace("shortcut.norm.", "downsample.1.").replace("shortcut.", "downsample.0.")
        for k in "123":
            name = name.replace(f".conv{k}.norm.", f".bn{k}.")
        for ours, theirs in _STAGES.items():
            name = name.replace(ours, theirs)
        if name.endswith("running_var"):
            named[name.replace("running_var", "num_batches_tracked")] = torch.tensor(1)
        named[name] = tensor
    return named


def original_layout(
    state: dict[str, torch.Tensor], rows: list[int], num_rows: int
) -> dict[str, torch.Tensor]:
    """Returns weights as in the original release.

    Args:
        state: with the published names.
        rows: the row of each class in the class head, which is 9 elsewhere.
        num_rows: rows of the class head.
    """
    prefix = "detr.detr.backbone.0.backbone."
    backbone = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
    original = {"detr.backbone.0.body." + n: t for n, t in torchvision_names(backbone).items()}
    for name, tensor in state.items():
        if name.startswith(prefix):
            continue
        if "class_embed" in name:
            head = torch.full((num_rows, *tensor.shape[1:]), 9.0)
            head[rows] = tensor
            tensor = head
        original[name.removeprefix("detr.")] = tensor
    return original


def released_file(path: Path, state: dict[str, torch.Tensor], **args: Any) -> Path:
    """Writes what the original training script saves next to the weights."""
    namespace = argparse.Namespace(lr=np.float64(2e-4), output_dir=Path("r50"), device="cuda", **args)
    parameters = {"state": {0: {"step": 7, "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 2e-4}]}
    schedule = {"last_epoch": 11, "best": np.float32(0.5), "milestones": {4: 1}}
    torch.save(
        {"model": state, "optimizer": parameters, "lr_scheduler": schedule, "epoch": 11, "args": namespace},
        path,
    )
    return path
