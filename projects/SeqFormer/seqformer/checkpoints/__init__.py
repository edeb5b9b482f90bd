"""Reading, checking, converting and exporting checkpoints."""

from seqformer.checkpoints.checkpointer import SeqFormerCheckpointer
from seqformer.checkpoints.download import HUB_FILE, WEIGHT_SUFFIXES, is_address, local_file
from seqformer.checkpoints.export import export_weights, write_model
from seqformer.checkpoints.files import (
    read_category_ids,
    read_checkpoint,
    read_class_names,
    read_metadata,
    read_state,
    trust_checkpoints,
    write_state,
)
from seqformer.checkpoints.hub import push_model
from seqformer.checkpoints.layouts import (
    Layout,
    convert_efficientnet_lite0,
    convert_seqformer,
    to_published,
)
from seqformer.checkpoints.metadata import model_metadata, read_config
from seqformer.checkpoints.start import start_weights

__all__ = [
    "HUB_FILE",
    "Layout",
    "SeqFormerCheckpointer",
    "WEIGHT_SUFFIXES",
    "convert_efficientnet_lite0",
    "convert_seqformer",
    "export_weights",
    "is_address",
    "local_file",
    "model_metadata",
    "push_model",
    "read_category_ids",
    "read_checkpoint",
    "read_class_names",
    "read_config",
    "read_metadata",
    "read_state",
    "start_weights",
    "to_published",
    "trust_checkpoints",
    "write_model",
    "write_state",
]
