"""Training processes and hooks that Detectron2 does not have."""

from seqformer.engine.hooks import BestCheckpoint
from seqformer.engine.processes import started_by_torchrun, torchrun_processes

__all__ = ["BestCheckpoint", "started_by_torchrun", "torchrun_processes"]
