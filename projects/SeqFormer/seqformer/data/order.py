"""The order of training samples and their random numbers: both depend on a seed and a position alone.

A clip is therefore the same for any number of processes and data-loading workers, and a training that goes
on from a checkpoint sees what it would have seen without the interruption.
"""

from __future__ import annotations

import os
import random
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

_ATTEMPTS = 100  # samples tried before one without a clip is an error
_CHUNK = 1024  # datasets drawn at once


def derived_seed(*numbers: int) -> int:
    """A seed of 32 bits that depends on all the numbers, which are not negative."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


@contextmanager
def own_random_numbers(seed: int) -> Iterator[None]:
    """Seeds the generators of Python, NumPy and PyTorch (CPU), and afterwards restores their states."""
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


class TrainingOrder(Sampler[tuple[int, int]]):
    """The endless order of training samples, batch by batch, of all processes together.

    Every process yields its share of each batch: items ``rank``, ``rank + world size`` and so on.

    Args:
        sizes: samples of each dataset; datasets lie one after the other.
        batch_size: of all processes together.
        seed: the order's.
        ratios: how often a sample is of each dataset, in proportion; None to draw all samples equally often.
        groups: a number for every sample; a batch holds samples of one group. None: all are one group.
        subset: share of each dataset that is used, a random one.

    Attributes:
        seed: may be set until iteration begins.
        first_batch: the batch to begin with; may be set until iteration begins.

    Raises:
        InputError: if there is not one ratio above zero a dataset, or the processes cannot share a batch
            evenly.
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
        """Pairs of a sample's index and the seed of its random numbers."""
        if get_worker_info() is not None:
            # Ctrl-C, torchrun and clusters signal process groups. The training process decides what follows,
            # and it needs the processes that load its data until then.
            os.setpgrp()
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
    """Maps samples to clips, each with random numbers of its own.

    Args:
        records: dataset dicts; kept serialised, as Detectron2 keeps them.
        mapper: from a dict to a clip, or to None, upon which another dict takes its place.
    """

    def __init__(self, records: list[dict[str, Any]], mapper: Callable[[dict[str, Any]], Any]):
        self._records = DatasetFromList(records, copy=False)
        self._mapper = mapper

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, item: tuple[int, int]) -> Any:
        """The clip of a sample's index and seed, as :class:`TrainingOrder` yields them.

        Raises:
            InputError: if no sample gives a clip, or one is broken.
        """
        index, seed = item
        with own_random_numbers(seed):
            for _ in range(_ATTEMPTS):
                clip = self._mapper(self._records[index])
                if clip is not None:
                    return clip
                index = int(np.random.randint(len(self)))
        raise InputError(
            f"{_ATTEMPTS} samples in a row gave no clip with an instance: is INPUT.CROP.SIZE too small?"
        )
