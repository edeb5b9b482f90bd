"""Reading, checking, converting and exporting checkpoints."""

from seqformer.checkpoints.checkpointer import SeqFormerCheckpointer
from seqformer.checkpoints.export import export_weights
from seqformer.checkpoints.files import (
    read_checkpoint,
    read_class_names,
    read_metadata,
    read_state,
    write_state,
)
from seqformer.checkpoints.layouts import convert_efficientnet_lite0, convert_seqformer

__all__ = [
    "SeqFormerCheckpointer",
    "convert_efficientnet_lite0",
    "convert_seqformer",
    "export_weights",
    "read_checkpoint",
    "read_class_names",
    "read_metadata",
    "read_state",
    "write_state",
]
