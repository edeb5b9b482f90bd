"""Processes, their memory, and hooks that Detectron2 does not have."""

from seqformer.engine.allocator import keep_freed_memory
from seqformer.engine.hooks import BestCheckpoint
from seqformer.engine.processes import started_by_torchrun, torchrun_processes

__all__ = ["BestCheckpoint", "keep_freed_memory", "started_by_torchrun", "torchrun_processes"]
