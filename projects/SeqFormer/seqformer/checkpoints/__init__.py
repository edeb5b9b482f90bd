"""Reading, checking, converting and exporting checkpoints."""

from seqformer.checkpoints.checkpointer import SeqFormerCheckpointer
from seqformer.checkpoints.export import export_weights
from seqformer.checkpoints.files import (
    read_checkpoint,
    read_class_names,
    read_metadata,
    read_state,
    trust_checkpoints,
    write_state,
)
from seqformer.checkpoints.layouts import (
    Layout,
    convert_efficientnet_lite0,
    convert_seqformer,
    to_published,
)

__all__ = [
    "Layout",
    "SeqFormerCheckpointer",
    "convert_efficientnet_lite0",
    "convert_seqformer",
    "export_weights",
    "read_checkpoint",
    "read_class_names",
    "read_metadata",
    "read_state",
    "to_published",
    "trust_checkpoints",
    "write_state",
]
