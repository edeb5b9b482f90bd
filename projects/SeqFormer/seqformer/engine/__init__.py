"""Training: the trainer, its optimizer, hooks and processes."""

from seqformer.engine.allocator import keep_freed_memory
from seqformer.engine.budget import TimeBudget
from seqformer.engine.hooks import BestCheckpoint, MetricsWriter
from seqformer.engine.optimizer import build_optimizer
from seqformer.engine.processes import started_by_torchrun, torchrun_processes
from seqformer.engine.trainer import Trainer, load_evaluated_model

__all__ = [
    "BestCheckpoint",
    "MetricsWriter",
    "TimeBudget",
    "Trainer",
    "build_optimizer",
    "keep_freed_memory",
    "load_evaluated_model",
    "started_by_torchrun",
    "torchrun_processes",
]
