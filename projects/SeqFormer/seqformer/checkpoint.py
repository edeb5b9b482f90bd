"""Checkpoints: Detectron2's checkpointer, which also reads safetensors and can refuse what does not fit."""

from __future__ import annotations

import os
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from seqformer.errors import InputError

__all__ = ["SeqFormerCheckpointer", "read_metadata", "replace_file"]

_PARTIAL = ".partial"  # in the name of a file while it is written


def replace_file(path: Path, text: str) -> None:
    """Writes a text file that is complete or as before, whenever the process ends."""
    partial = path.with_name(path.name + _PARTIAL)
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


class SeqFormerCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer that also reads ``.safetensors`` files.

    A file that it saves has its name once it is complete, so a process may be killed at any moment.

    Args:
        model: what to load into.
        save_dir: where checkpoints are saved.
        strict: refuse a file that lacks any of the model's tensors or holds others. Training leaves it
            off, since it starts from a backbone's weights or from other class counts.
        resumable: training resumes from what was saved last; if off, what is saved does not count.
        checkpointables: what else to save and load, as in Detectron2.

    ``load`` raises InputError if the file is missing or unreadable, or, when strict, does not fit.
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
        """As in Detectron2: ``save_dir/name.pth`` with the model, the checkpointables and ``kwargs``."""
        super().save(name + _PARTIAL, **kwargs)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Gives a file that is now written its name, and notes it as the one to resume from."""
        name = last_filename_basename.replace(_PARTIAL, "")
        os.replace(Path(self.save_dir, last_filename_basename), Path(self.save_dir, name))
        if self.resumable:
            replace_file(Path(self.save_dir, "last_checkpoint"), name)

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As in Detectron2; ``path`` may end in .pth, .pkl or .safetensors, and may be "" for nothing."""
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
            raise InputError(f"weights '{filename}' hold no state dict")
        return checkpoint

    def _load_model(self, checkpoint: dict[str, Any]):
        incompatible = super()._load_model(checkpoint)
        if self.strict:
            for key, found, wanted in incompatible.incorrect_shapes:
                raise InputError(
                    f"weights and config do not fit: {key} is {_shape(found)} in the file and "
                    f"{_shape(wanted)} in the model{_hint(key)}"
                )
            for what, keys in (
                ("lacks", incompatible.missing_keys),
                ("has no place for", incompatible.unexpected_keys),
            ):
                if keys:
                    owner = "the file" if what == "lacks" else "the model"
                    raise InputError(
                        f"weights and config do not fit: {owner} {what} {len(keys)} tensors, "
                        f"{keys[0]} among them; is it another architecture?"
                    )
        return incompatible


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _hint(key: str) -> str:
    return "; set MODEL.SeqFormer.NUM_CLASSES to the file's" if "class_embed" in key else ""


def read_metadata(path: str | Path) -> dict[str, str]:
    """The text fields that a safetensors file carries; none for other files.

    Raises:
        InputError: if the file is missing or no safetensors file.
    """
    if Path(path).suffix != ".safetensors":
        return {}
    try:
        with safe_open(str(path), framework="pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise InputError(f"weights '{path}' cannot be read: {error}") from error
