"""Detectron2's checkpointer with every layout of weights, strict checks, and atomic saving."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from torch import nn

from seqformer.checkpoints.download import local_file
from seqformer.checkpoints.files import read_checkpoint, tensors_of
from seqformer.checkpoints.layouts import CLASS_HEAD, COCO_ROWS, Layout, to_published
from seqformer.errors import DivergedError, InputError
from seqformer.formats.files import replaced_when_complete

__all__ = ["SeqFormerCheckpointer"]

logger = logging.getLogger(__name__)

_PARTIAL = ".partial"  # in the name of a file while it is being written
_NUMBERED = re.compile(r"model_(\d+)\.pth")
_OTHER = "; is it another architecture?"


class SeqFormerCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer that reads every layout of weights, and no code.

    Layouts are told apart by their names, see :func:`seqformer.checkpoints.to_published`; files, by
    :func:`seqformer.checkpoints.read_checkpoint`. A line in the log says what was recognised and loaded. A
    saved file gets its final name only when it is complete, so the process can be killed at any moment.

    Args:
        model: the model to load into.
        save_dir: the folder in which checkpoints are saved.
        strict: refuse files with missing or additional tensors. Training leaves it off, since it starts from
            weights of a backbone or for other classes. Files of which no tensor fits are always refused.
        resumable: whether training resumes from checkpoints saved by this object.
        checkpointables: other objects to save and load, as in Detectron2.

    ``load`` raises InputError if the file is missing, cannot be read, needs code or does not fit.
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
        """Saves ``save_dir/name.pth`` with model, checkpointables and ``kwargs``, as in Detectron2.

        Raises:
            DivergedError: if weights are not finite.
            InputError: if the file cannot be written, for example because the disk is full.
        """
        for key, tensor in self.model.state_dict().items():
            if not tensor.isfinite().all():
                raise DivergedError(f"{key} is not finite")
        try:
            super().save(name + _PARTIAL, **kwargs)
        except (OSError, RuntimeError) as error:  # PyTorch raises RuntimeError if the disk is full
            with suppress(OSError):
                Path(self.save_dir, f"{name}{_PARTIAL}.pth").unlink()
            reason = getattr(error, "strerror", None) or "is the disk full?"
            raise InputError(f"'{Path(self.save_dir, name)}.pth' cannot be written: {reason}") from error

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Gives a complete file its final name and records it as the one to resume from."""
        name = last_filename_basename.replace(_PARTIAL, "")
        os.replace(Path(self.save_dir, last_filename_basename), Path(self.save_dir, name))
        if self.resumable:
            with replaced_when_complete(Path(self.save_dir, "last_checkpoint")) as part:
                part.write_text(name, encoding="utf-8")

    def get_checkpoint_file(self) -> str:
        """Returns the file to resume from, which is in ``save_dir``.

        Raises:
            InputError: if the recorded name is not a plain file name.
        """
        path = super().get_checkpoint_file()
        if path and Path(path).parent != Path(self.save_dir):
            raise InputError(
                f"'{Path(self.save_dir, 'last_checkpoint')}' must be the name of a file in its folder"
            )
        return path

    def go_back(self, iteration: int) -> str | None:
        """Makes training resume from the newest checkpoint in ``save_dir`` before an iteration.

        Returns:
            The name of the file, or None if there is none; then training does not resume.
        """
        earlier = {
            int(match[1]): path.name
            for path in Path(self.save_dir).glob("model_*.pth")
            if (match := _NUMBERED.fullmatch(path.name)) and int(match[1]) < iteration
        }
        record = Path(self.save_dir, "last_checkpoint")
        if not earlier:
            record.unlink(missing_ok=True)
            return None
        name = earlier[max(earlier)]
        with replaced_when_complete(record) as part:
            part.write_text(name, encoding="utf-8")
        return name

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Loads a file as in Detectron2. A ``path`` of "" loads nothing.

        An address is downloaded first; see :func:`seqformer.checkpoints.local_file`.
        """
        if path and "?matching_heuristics=" not in path:  # which Detectron2 reads from the address
            path = str(local_file(path))
        try:
            return super().load(path, *args, **kwargs)
        except AssertionError as error:
            raise InputError(f"weights '{path}': {error}") from error
        except OSError as error:
            raise InputError(f"weights '{path}' cannot be read: {error}") from error

    def _load_file(self, filename: str) -> dict[str, Any]:
        checkpoint = read_checkpoint(filename)
        if filename.endswith(".pkl") and "model" not in checkpoint:  # from Detectron2's catalogue
            blobs = tensors_of({"model": checkpoint.get("blobs", checkpoint)}, filename)
            blobs = {name: blob for name, blob in blobs.items() if not name.endswith("_momentum")}
            checkpoint = {"model": blobs, "__author__": "Caffe2", "matching_heuristics": True}
        checkpoint["model"] = tensors_of(checkpoint, filename)
        checkpoint["path"] = filename
        return checkpoint

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        path, state, in_model = checkpoint.pop("path"), checkpoint.pop("model"), self.model.state_dict()
        if checkpoint.pop("matching_heuristics", False):
            by_caffe2 = checkpoint.get("__author__") == "Caffe2"
            layout = Layout(
                "names matched by Detectron2", align_and_update_state_dicts(in_model, state, by_caffe2)
            )
        else:
            classes = next((len(t) for name, t in in_model.items() if f"{CLASS_HEAD}0.bias" in name), 0)
            layout = to_published(state, classes)
        absent = [
            name for name, t in in_model.items() if getattr(layout.state.get(name), "shape", None) != t.shape
        ]
        if len(absent) == len(in_model) and not self.strict:
            raise InputError(
                f"no tensor of weights '{path}' ({layout.name}) fits the model: the file has "
                f"{next(iter(state))}, the model {next(iter(in_model))}"
            )
        incompatible = super()._load_model(checkpoint | {"model": layout.state})
        problems = [_wrong_shape(*shapes) for shapes in incompatible.incorrect_shapes]
        missing, unexpected = incompatible.missing_keys, incompatible.unexpected_keys
        if self.strict:
            if missing and not problems:
                problems = [f"the file lacks {len(missing)} tensors, including {missing[0]}{_OTHER}"]
            elif unexpected and not problems:
                problems = [
                    f"the model has no place for {len(unexpected)} tensors, including {unexpected[0]}{_OTHER}"
                ]
            if problems:
                raise InputError(f"weights '{path}' ({layout.name}) and config do not match: {problems[0]}")
            # Nothing is missing; what the file lacks all the same is not used in inference.
            in_model = {name: tensor for name, tensor in in_model.items() if name not in absent}
            absent = []
        loaded = f"{len(in_model) - len(absent)} of {len(in_model)} tensors loaded"
        rest = _not_loaded(absent, problems, unexpected)
        logger.info("%s", "; ".join([f"weights '{path}': {layout.name}", loaded, *rest]))
        return incompatible

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        """``_load_model`` has said it in one line."""


def _not_loaded(absent: list[str], problems: list[str], unexpected: list[str]) -> list[str]:
    """Describes what was not loaded."""
    parts = []
    if absent:
        owners = Counter(
            name.replace("detr.detr.", "").removeprefix("detr.").split(".")[0] for name in absent
        )
        parts.append("not loaded: " + ", ".join(f"{owner} ({count})" for owner, count in owners.items()))
    parts += problems[:1]
    if unexpected:
        parts.append(f"{len(unexpected)} tensors of the file are not used, including {unexpected[0]}")
    return parts


def _wrong_shape(name: str, in_file: tuple[int, ...], in_model: tuple[int, ...]) -> str:
    text = f"{name} is {_shape(in_file)} in the file and {_shape(in_model)} in the model"
    if CLASS_HEAD not in name:
        return text
    if in_file[0] == COCO_ROWS:
        return f"{text}: the file was pretrained on COCO, a config for it has MODEL.SeqFormer.NUM_CLASSES 80"
    return f"{text}: MODEL.SeqFormer.NUM_CLASSES is another than the file's"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
