"""Detectron2's checkpointer with safetensors, strict checks of weights, and atomic saving."""

from __future__ import annotations

import os
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from seqformer.checkpoints.download import local_file
from seqformer.errors import InputError
from seqformer.formats.files import replaced_when_complete

__all__ = ["SeqFormerCheckpointer"]

_PARTIAL = ".partial"  # in the name of a file while it is being written


class SeqFormerCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer that also reads ``.safetensors`` files.

    A file gets its final name only when it is complete, so the process can be killed at any moment.

    Args:
        model: the model to load into.
        save_dir: the folder in which checkpoints are saved.
        strict: refuse files with missing or additional tensors. Training leaves it off, since it starts from
            weights of a backbone or for other classes.
        resumable: whether training resumes from checkpoints saved by this object.
        checkpointables: other objects to save and load, as in Detectron2.

    ``load`` raises InputError if the file is missing, cannot be read or, if strict, does not fit.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        strict: bool = False,
        resumable: bool = True,
        **checkpointables: Any,
    ):
        super().__init__(model, save_dir, **checkpointables)
        self.strict = strict
        self.resumable = resumable

    def save(self, name: str, **kwargs: Any) -> None:
        """Saves ``save_dir/name.pth`` with model, checkpointables and ``kwargs``, as in Detectron2."""
        super().save(name + _PARTIAL, **kwargs)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Gives a complete file its final name and records it as the one to resume from."""
        name = last_filename_basename.replace(_PARTIAL, "")
        os.replace(Path(self.save_dir, last_filename_basename), Path(self.save_dir, name))
        if self.resumable:
            with replaced_when_complete(Path(self.save_dir, "last_checkpoint")) as part:
                part.write_text(name, encoding="utf-8")

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Loads a .pth, .pkl or .safetensors file as in Detectron2. A ``path`` of "" loads nothing.

        An address is downloaded first; see :func:`seqformer.checkpoints.local_file`.
        """
        if path and "?matching_heuristics=" not in path:  # which Detectron2 reads from the address
            path = str(local_file(path))
        try:
            return super().load(path, *args, **kwargs)
        except AssertionError as error:
            raise InputError(f"weights '{path}': {error}") from error

    def _load_file(self, filename: str) -> dict[str, Any]:
        try:
            if filename.endswith(".safetensors"):
                return {"model": load_file(filename)}
            checkpoint = super()._load_file(filename)
        except (SafetensorError, UnpicklingError, RuntimeError, EOFError, KeyError, OSError) as error:
            reason = str(error).strip().split("\n")[0]
            raise InputError(f"weights '{filename}' cannot be read: {reason}") from error
        if not isinstance(checkpoint.get("model"), dict):
            raise InputError(f"weights '{filename}' have no state dict")
        return checkpoint

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        incompatible = super()._load_model(checkpoint)
        if self.strict:
            for key, in_file, in_model in incompatible.incorrect_shapes:
                raise InputError(
                    f"weights and config do not match: {key} is {_shape(in_file)} in the file and "
                    f"{_shape(in_model)} in the model{_hint(key)}"
                )
            for what, keys in (
                ("lacks", incompatible.missing_keys),
                ("has no place for", incompatible.unexpected_keys),
            ):
                if keys:
                    owner = "the file" if what == "lacks" else "the model"
                    raise InputError(
                        f"weights and config do not match: {owner} {what} {len(keys)} tensors, "
                        f"including {keys[0]}; is it another architecture?"
                    )
        return incompatible


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _hint(key: str) -> str:
    return "; set MODEL.SeqFormer.NUM_CLASSES to the file's" if "class_embed" in key else ""
