"""Processes started by ``torchrun``, on GPUs or CPUs, set up for Detectron2."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from detectron2.utils import comm

from seqformer.errors import InputError

__all__ = ["started_by_torchrun", "torchrun_processes"]


def started_by_torchrun() -> bool:
    """Whether ``torchrun`` started this process."""
    return dist.is_available() and dist.is_torchelastic_launched()


@contextmanager
def torchrun_processes(on_cuda: bool) -> Iterator[None]:
    """Connects the processes started by ``torchrun``, by NCCL with one GPU each or by Gloo on CPUs.

    Args:
        on_cuda: whether the model is on GPUs.

    Raises:
        InputError: if a machine has more processes than GPUs.
    """
    local_rank, local_size = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if on_cuda:
        available = torch.cuda.device_count()
        if local_size > available:
            raise InputError(
                f"{local_size} processes on a machine with {available} GPUs: start at most one per GPU"
            )
        torch.cuda.set_device(local_rank)
    dist.init_process_group("nccl" if on_cuda else "gloo")
    comm.create_local_process_group(local_size)
    yield
    # After an error this is skipped: other processes may be waiting, and torchrun ends all of them.
    dist.barrier()  # no process may leave while others still communicate with it
    dist.destroy_process_group()
