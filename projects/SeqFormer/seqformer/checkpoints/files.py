"""Checkpoint files: read without executing code in them, and written atomically."""

from __future__ import annotations

import argparse
import json
import pathlib
import pickle
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from seqformer.checkpoints.download import local_file
from seqformer.checkpoints.pickles import check_pickles
from seqformer.errors import InputError
from seqformer.formats.files import replaced_when_complete

__all__ = [
    "read_category_ids",
    "read_checkpoint",
    "read_class_names",
    "read_metadata",
    "read_state",
    "trust_checkpoints",
    "write_state",
]

# Where checkpoints keep their tensors; a file can nest them.
_STATE_KEYS = ("model", "state_dict", "model_state_dict", "model_state", "module")
# Prefixes added by wrappers of the whole model.
_WRAPPERS = ("module.", "_orig_mod.")

_trusted: ContextVar[bool] = ContextVar("trusted", default=False)


@contextmanager
def trust_checkpoints(trust: bool = True) -> Iterator[None]:
    """Lets files that are read inside the context execute code, as pickles can.

    Args:
        trust: False changes nothing.

    Examples:
        >>> with trust_checkpoints():
        ...     predictor = VideoPredictor.from_pretrained("own.pkl", config_file="config.yaml")
    """
    token = _trusted.set(trust or _trusted.get())
    try:
        yield
    finally:
        _trusted.reset(token)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Returns the content of a checkpoint, with tensors on the CPU.

    Files in PyTorch's format may contain what training scripts save next to tensors: numbers, NumPy scalars
    and arrays, paths, ``argparse.Namespace``. Pickles (.pkl), as in Detectron2's model zoo, may contain NumPy
    arrays. Anything else could execute code and is refused; see :func:`trust_checkpoints`.

    Args:
        path: a .pkl or .safetensors file, or its address; all other suffixes are read as PyTorch's format.

    Raises:
        InputError: if the file is missing, is not a checkpoint, or needs code.
    """
    path = local_file(path)
    if not path.is_file():
        raise InputError(f"weights '{path}' not found")
    try:
        if path.suffix == ".safetensors":
            return {"model": load_file(path)}
        checkpoint = _read_pickle(path) if path.suffix == ".pkl" else _read_torch(path)
    except InputError:
        raise
    except Exception as error:  # damaged files raise nearly everything
        reason = f"{type(error).__name__}: {_first_sentence(error)}".removesuffix(": ")
        raise InputError(
            f"weights '{path}' cannot be read: not a checkpoint, or damaged ({reason})"
        ) from error
    if not isinstance(checkpoint, dict):
        raise InputError(f"weights '{path}' have no state dict, but {type(checkpoint).__name__}")
    return checkpoint


def _read_torch(path: Path) -> Any:
    if _trusted.get():
        return torch.load(path, map_location="cpu", weights_only=False)
    check_pickles(path)
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if found := re.search(r"(?:GLOBAL|class) `?([A-Za-z_][\w.]*\.\w+)", str(error)):
            raise _needs_code(path, found[1]) from error
        raise


def _read_pickle(path: Path) -> Any:
    with path.open("rb") as file:
        if _trusted.get():
            return pickle.load(file, encoding="latin1")
        return _ArrayUnpickler(file, path).load()


def _needs_code(path: Path, name: str) -> InputError:
    return InputError(
        f"weights '{path}' contain {name:.200}, which executes code when it is loaded; "
        "if you trust the file, give --trust-checkpoint"
    )


def _first_sentence(error: Exception) -> str:
    """Returns the first sentence of an error, without terminal codes."""
    text = re.sub(r"\x1b\[[\d;]*m", "", str(error)).strip()
    return text.split("\n")[0].split(". ")[0][:200]


def _numpy_scalar(dtype: np.dtype, data: Any = None) -> Any:
    return np.frombuffer(data.encode("latin1") if isinstance(data, str) else data, dtype, 1)[0]


def _empty_array(kind: type, shape: Any, typecode: Any) -> np.ndarray:
    """Creates the array that a pickle then fills; the file's shape is not trusted with memory."""
    return np.ndarray.__new__(np.ndarray, (0,), "b")


_ARRAY_MODULES = ("numpy._core.multiarray", "numpy.core.multiarray")
_HARMLESS: list[Any] = [
    argparse.Namespace,
    pathlib.PosixPath,
    pathlib.PurePosixPath,
    np.ndarray,
    np.dtype,
    *(getattr(np.dtypes, name) for name in np.dtypes.__all__),
    *((_numpy_scalar, f"{module}.scalar") for module in _ARRAY_MODULES),
    *((_empty_array, f"{module}._reconstruct") for module in _ARRAY_MODULES),
]


class _ArrayUnpickler(pickle._Unpickler):  # in Python, since the memo of the one in C can take any memory
    """Reads pickles of NumPy arrays."""

    _GLOBALS = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("collections", "OrderedDict"): OrderedDict,
        ("_codecs", "encode"): lambda text, encoding: text.encode("latin1"),
        **{(module, "scalar"): _numpy_scalar for module in _ARRAY_MODULES},
        **{(module, "_reconstruct"): _empty_array for module in _ARRAY_MODULES},
    }

    def __init__(self, file: Any, path: Path):
        super().__init__(file, encoding="latin1")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._GLOBALS[module, name]
        except KeyError:
            raise _needs_code(self._path, f"{module}.{name}") from None


def tensors_of(checkpoint: Mapping[str, Any], path: str | Path) -> dict[str, Tensor]:
    """Returns the tensors of a checkpoint by name, without the names of wrappers.

    Args:
        checkpoint: from :func:`read_checkpoint`.
        path: the file, for messages.

    Raises:
        InputError: if it contains something other than tensors and arrays.
    """
    state: Any = checkpoint
    while key := next((k for k in _STATE_KEYS if isinstance(state.get(k), dict)), None):
        state = state[key]
    if not state or not all(
        isinstance(name, str) and isinstance(value, Tensor | np.ndarray | np.generic)
        for name, value in state.items()
    ):
        raise InputError(f"weights '{path}' have no state dict")
    while prefix := next((p for p in _WRAPPERS if all(name.startswith(p) for name in state)), None):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    try:
        tensors = {name: torch.as_tensor(value) for name, value in state.items()}
    except (TypeError, ValueError) as error:  # arrays of objects, of text, or of another byte order
        raise InputError(f"weights '{path}' have no state dict: {_first_sentence(error)}") from error
    for name, tensor in tensors.items():
        if not _is_whole(tensor):
            raise InputError(
                f"weights '{path}': the tensor {name!a:.200} has other values than those in the file"
            )
    return tensors


def _is_whole(tensor: Tensor) -> bool:
    """Whether all values of a tensor are in memory; a copy of one that repeats a few can take any memory."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        return False
    return tensor.nbytes <= tensor.untyped_storage().nbytes()


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Returns the tensors of a checkpoint by name, without the names of wrappers such as "module.".

    Raises:
        InputError: if the file is missing, is not a checkpoint, or contains something other than tensors.
    """
    return tensors_of(read_checkpoint(path), path)


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
