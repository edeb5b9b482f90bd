"""Exports a trained model as a small file: half precision, no optimizer, class names included."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from seqformer.checkpoints.files import read_checkpoint, read_state, write_state
from seqformer.checkpoints.layouts import to_published
from seqformer.errors import InputError

__all__ = ["export_weights"]

_CLASS_HEAD = "detr.detr.class_embed.0.bias"
_TRAINING_ONLY = ".training_query_embed.weight"  # additional queries of MODEL.SeqFormer.QUERY_GROUPS


def export_weights(
    source: str | Path, output: str | Path, class_names: Sequence[str], *, average: bool = False
) -> None:
    """Writes the model of a checkpoint as a safetensors file in float16.

    Modules with two names, such as box heads, are written under both, as in checkpoints. Queries that only
    training uses (MODEL.SeqFormer.QUERY_GROUPS) are dropped.

    Args:
        source: a training checkpoint.
        output: the .safetensors file.
        class_names: class names in the order of the model; saved in the file.
        average: export the moving average of the weights (SOLVER.EMA) instead of the latest weights.

    Raises:
        InputError: if the checkpoint is missing, has no average to export, or has another number of classes.
    """
    output = Path(output)
    if output.suffix != ".safetensors":
        raise InputError(f"'{output}': the output must end in .safetensors")
    state = _read_average(source) if average else read_state(source)
    state = to_published(state, len(class_names)).state
    head = state.get(_CLASS_HEAD)
    if head is None:
        raise InputError(f"'{source}' is not a checkpoint of SeqFormer")
    if len(head) != len(class_names):
        raise InputError(f"'{source}' has {len(head)} classes, but there are {len(class_names)} class names")
    # Trained weights fit into the range of float16. Integer buffers keep their dtype.
    half = {
        name: t.half() if t.is_floating_point() else t
        for name, t in state.items()
        if not name.endswith(_TRAINING_ONLY)
    }
    if not all(torch.isfinite(t).all() for t in half.values() if t.is_floating_point()):
        raise InputError(f"'{source}' has weights outside the range of float16")
    write_state(output, half, {"thing_classes": json.dumps(list(class_names))})


def _read_average(source: str | Path) -> dict[str, Tensor]:
    """Returns the moving average of the weights (SOLVER.EMA) in a training checkpoint."""
    trainer = read_checkpoint(source).get("trainer", {})
    if "average" not in trainer:
        raise InputError(f"'{source}' has no moving average: it was trained without SOLVER.EMA.ENABLED")
    prefix = "module."
    average = trainer["average"].items()
    return {name.removeprefix(prefix): tensor for name, tensor in average if name.startswith(prefix)}
