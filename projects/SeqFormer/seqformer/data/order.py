"""The order of training samples, and their random numbers, which depend only on a seed and a position.

Clips are therefore the same for any number of processes and data-loading workers, and a resumed training uses
the same clips as one without an interruption.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetFromList
from detectron2.utils import comm
from torch.utils.data import Dataset, Sampler, get_worker_info

from seqformer.errors import InputError

__all__ = ["TrainingClips", "TrainingOrder", "derived_seed", "own_random_numbers"]

_ATTEMPTS = 100  # samples tried before it is an error that none has a clip
_CHUNK = 1024  # datasets sampled at once


def derived_seed(*numbers: int) -> int:
    """Returns a 32-bit seed that depends on all the numbers, which must not be negative."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


@contextmanager
def own_random_numbers(seed: int) -> Iterator[None]:
    """Seeds the generators of Python, NumPy and PyTorch (CPU), and restores their states afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def _obey_only_parent() -> None:
    """Keeps a data-loading process alive until the training process has no more use for it.

    Terminals and torchrun signal whole process groups, clusters and systemd every process of a job. The
    training process finishes its step first, for which it may need another batch.
    """
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # macOS
        return
    parent = os.getppid()

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
            pass
        os._exit(0)

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=wait, daemon=True).start()


class TrainingOrder(Sampler[tuple[int, int]]):
    """The endless order of training samples, in batches that all processes share.

    Every process yields its part of each batch: items ``rank``, ``rank + world size`` and so on.

    Args:
        sizes: number of samples in each dataset; datasets are concatenated.
        batch_size: samples per batch, over all processes.
        seed: seed of the order.
        ratios: relative number of samples from each dataset; None to use all samples equally often.
        groups: a group number for every sample; a batch contains samples of one group. None: a single group.
        subset: fraction of each dataset to use, chosen at random.

    Attributes:
        seed: can be set until iteration begins.
        first_batch: index of the first batch; can be set until iteration begins.

    Raises:
        InputError: if there is not one ratio above zero for each dataset, or the batch size is not a multiple
            of the number of processes.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        batch_size: int,
        seed: int,
        *,
        ratios: Sequence[float] | None = None,
        groups: np.ndarray | None = None,
        subset: float = 1.0,
    ):
        if ratios is not None and (len(ratios) != len(sizes) or min(ratios) <= 0):
            raise InputError(
                f"DATASETS.TRAIN_RATIOS must have a number above 0 for each of {len(sizes)} datasets, "
                f"not {tuple(ratios)}"
            )
        if batch_size < 1 or batch_size % comm.get_world_size():
            raise InputError(
                f"SOLVER.IMS_PER_BATCH {batch_size} must be a multiple of the number of processes, "
                f"{comm.get_world_size()}"
            )
        self.sizes = list(sizes)
        self.batch_size = batch_size
        self.seed = seed
        self.ratios = ratios
        self.groups = groups
        self.subset = subset
        self.first_batch = 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yields a sample's index and the seed of its random numbers."""
        if get_worker_info() is not None:
            _obey_only_parent()
        rank, world_size = comm.get_rank(), comm.get_world_size()
        for batch in islice(self._batches(), self.first_batch, None):
            for position, index in batch[rank::world_size]:
                yield index, derived_seed(self.seed, position)

    def _batches(self) -> Iterator[list[tuple[int, int]]]:
        waiting: dict[int, list[tuple[int, int]]] = {}
        for position, index in enumerate(self._indices()):
            group = 0 if self.groups is None else int(self.groups[index])
            waiting.setdefault(group, []).append((position, index))
            if len(waiting[group]) == self.batch_size:
                yield waiting.pop(group)

    def _indices(self) -> Iterator[int]:
        generators = [np.random.default_rng((self.seed, number)) for number in range(1 + len(self.sizes))]
        ends = np.cumsum(self.sizes)
        used = [
            generator.permutation(np.arange(end - size, end))[: max(1, int(self.subset * size))]
            for generator, end, size in zip(generators[1:], ends, self.sizes, strict=True)
        ]
        if self.ratios is None:
            yield from _endless(generators[0], np.concatenate(used))
            return
        streams = [
            _endless(generator, indices) for generator, indices in zip(generators[1:], used, strict=True)
        ]
        shares = np.divide(self.ratios, np.sum(self.ratios))
        while True:
            for dataset in generators[0].choice(len(streams), _CHUNK, p=shares):
                yield next(streams[dataset])


def _endless(generator: np.random.Generator, indices: np.ndarray) -> Iterator[int]:
    while True:
        yield from generator.permutation(indices).tolist()


class TrainingClips(Dataset[Any]):
    """Maps samples to clips, each with its own random numbers.

    Args:
        records: dataset dicts, which are stored serialised as in Detectron2.
        mapper: maps a dict to a clip, or to None; another dict then replaces it.
    """

    def __init__(self, records: list[dict[str, Any]], mapper: Callable[[dict[str, Any]], Any]):
        self._records = DatasetFromList(records, copy=False)
        self._mapper = mapper

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, item: tuple[int, int]) -> Any:
        """Returns the clip of an index and a seed, as yielded by :class:`TrainingOrder`.

        Raises:
            InputError: if no sample has a clip with an instance, or a sample cannot be read.
        """
        index, seed = item
        with own_random_numbers(seed):
            for _ in range(_ATTEMPTS):
                clip = self._mapper(self._records[index])
                if clip is not None:
                    return clip
                index = int(np.random.randint(len(self)))
        raise InputError(
            f"{_ATTEMPTS} samples in a row had no clip with an instance: is INPUT.CROP.SIZE too small?"
        )
