"""Writes a trained model as one file, with its class names and, if given, its config and licence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from detectron2.config import CfgNode
from torch import Tensor

from seqformer.checkpoints.files import read_checkpoint, read_state, write_state
from seqformer.checkpoints.layouts import to_published
from seqformer.checkpoints.metadata import model_metadata
from seqformer.errors import InputError

__all__ = ["export_weights", "write_model"]

_CLASS_HEAD = "detr.detr.class_embed.0.bias"
_TRAINING_ONLY = ".training_query_embed.weight"  # additional queries of MODEL.SeqFormer.QUERY_GROUPS


def export_weights(
    source: str | Path,
    output: str | Path,
    class_names: Sequence[str],
    *,
    average: bool = False,
    cfg: CfgNode | None = None,
    license: str = "",
) -> None:
    """Writes the model of a checkpoint as a safetensors file in float16, without the optimizer.

    Args:
        source: a training checkpoint.
        output: the .safetensors file.
        class_names: class names in the order of the model; saved in the file.
        average: export the moving average of the weights (SOLVER.EMA) instead of the latest weights.
        cfg: the model's config. With it the file needs no config file; see :func:`write_model`.
        license: licence of the weights, such as "Apache-2.0"; saved in the file.

    Raises:
        InputError: if the checkpoint is missing, has no average to export, or has another number of classes.
    """
    _check_suffix(output)
    state = _read_average(source) if average else read_state(source)
    state = to_published(state, len(class_names)).state
    head = state.get(_CLASS_HEAD)
    if head is None:
        raise InputError(f"'{source}' is not a checkpoint of SeqFormer")
    if len(head) != len(class_names):
        raise InputError(f"'{source}' has {len(head)} classes, but there are {len(class_names)} class names")
    write_model(output, state, model_metadata(class_names, cfg, license=license), half=True)


def write_model(
    output: str | Path, state: Mapping[str, Tensor], metadata: Mapping[str, str], *, half: bool = False
) -> None:
    """Writes a model as a safetensors file.

    Modules with two names, such as box heads, are written under both, as in checkpoints. Queries that only
    training uses (MODEL.SeqFormer.QUERY_GROUPS) are dropped.

    Args:
        output: the .safetensors file.
        state: tensors by name.
        metadata: what :func:`seqformer.checkpoints.model_metadata` returns.
        half: write float16 instead of the dtypes of ``state``.

    Raises:
        InputError: if weights are outside the range of float16, or the file cannot be written.
    """
    _check_suffix(output)
    kept = {name: tensor for name, tensor in state.items() if not name.endswith(_TRAINING_ONLY)}
    if half:
        # Trained weights fit into the range of float16. Integer buffers keep their dtype.
        kept = {name: t.half() if t.is_floating_point() else t for name, t in kept.items()}
        if not all(torch.isfinite(t).all() for t in kept.values() if t.is_floating_point()):
            raise InputError(f"'{output}': there are weights outside the range of float16")
    write_state(output, kept, metadata)


def _check_suffix(output: str | Path) -> None:
    if Path(output).suffix != ".safetensors":
        raise InputError(f"'{output}': the output must end in .safetensors")


def _read_average(source: str | Path) -> dict[str, Tensor]:
    """Returns the moving average of the weights (SOLVER.EMA) in a training checkpoint."""
    trainer = read_checkpoint(source).get("trainer", {})
    if "average" not in trainer:
        raise InputError(f"'{source}' has no moving average: it was trained without SOLVER.EMA.ENABLED")
    prefix = "module."
    average = trainer["average"].items()
    return {name.removeprefix(prefix): tensor for name, tensor in average if name.startswith(prefix)}
