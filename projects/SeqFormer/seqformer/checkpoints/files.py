"""Checkpoint files: read without executing code in them, and written atomically."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from seqformer.checkpoints.download import local_file
from seqformer.errors import InputError
from seqformer.formats.files import replaced_when_complete

__all__ = [
    "read_category_ids",
    "read_checkpoint",
    "read_class_names",
    "read_metadata",
    "read_state",
    "write_state",
]

_STATE_KEYS = ("model", "state_dict")


def read_checkpoint(path: str | Path) -> Any:
    """Returns the content of a .pth file, on the CPU. As everywhere, ``path`` may be an address.

    Raises:
        InputError: if the file is missing or is not a checkpoint.
    """
    path = local_file(path)
    if not path.is_file():
        raise InputError(f"no file '{path}'")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, UnpicklingError, EOFError, OSError) as error:
        raise InputError(f"'{path}' is not a checkpoint: {str(error).splitlines()[0]}") from error


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Returns the tensors of a .pth file by name, from its "model" or "state_dict" if it has one.

    Raises:
        InputError: if the file is missing, is not a checkpoint, or contains something other than tensors.
    """
    state = read_checkpoint(path)
    for key in _STATE_KEYS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise InputError(f"'{path}' has no state dict")
    return state


def write_state(
    path: str | Path, state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes tensors as .pth (under "model") or .safetensors, depending on the suffix.

    Args:
        path: the file. If writing fails, an existing file is not changed.
        state: tensors by name; they may share memory.
        metadata: text fields; only safetensors files can store them.

    Raises:
        InputError: if the suffix is unknown or the file cannot be written.
    """
    path = Path(path)
    if path.suffix not in (".pth", ".safetensors"):
        raise InputError(f"'{path}': the output must end in .pth or .safetensors")
    with replaced_when_complete(path) as part:
        try:
            if path.suffix == ".pth":
                torch.save({"model": dict(state)}, part)
            else:
                # safetensors refuses tensors that share memory, such as heads with two names.
                separate = {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}
                save_file(separate, part, metadata=dict(metadata or {}))
        except (SafetensorError, RuntimeError) as error:
            raise InputError(f"cannot write '{path}': {error}") from error


def read_metadata(path: str | Path) -> dict[str, str]:
    """Returns the text fields of a safetensors file; {} for other files.

    Raises:
        InputError: if the file is missing or is not a safetensors file.
    """
    path = local_file(path)
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(str(path), framework="pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise InputError(f"weights '{path}' cannot be read: {error}") from error


def read_class_names(path: str | Path) -> list[str]:
    """Returns the class names in a weights file in the order of the model; [] if it has none."""
    return _read_list(path, "thing_classes", str)


def read_category_ids(path: str | Path) -> list[int]:
    """Returns the ids of the classes in results, in the order of the model; [] if the file has none."""
    return _read_list(path, "category_ids", int)


def _read_list(path: str | Path, field: str, kind: type) -> list[Any]:
    """Reads a JSON list from the metadata, which may come from anybody."""
    try:
        values = json.loads(read_metadata(path).get(field, "[]"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"weights '{path}': '{field}' is not JSON") from error
    if not isinstance(values, list) or not all(type(value) is kind for value in values):
        raise InputError(f"weights '{path}': '{field}' is not a list of {kind.__name__}")
    return values
