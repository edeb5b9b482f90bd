"""The order of training samples: endless, fair, and the same for any number of processes."""

from __future__ import annotations

import random
from collections import Counter
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.utils import comm
from hypothesis import given
from hypothesis import strategies as st

from seqformer.data.order import TrainingClips, TrainingOrder, derived_seed, own_random_numbers
from seqformer.errors import InputError


def items(order: TrainingOrder, count: int) -> list[tuple[int, int]]:
    return list(islice(order, count))


@given(size=st.integers(1, 20), seed=st.integers(0, 2**31), batch=st.integers(1, 4))
def test_every_sample_is_used_once_per_epoch(size: int, seed: int, batch: int) -> None:
    samples = items(TrainingOrder([size], batch, seed), 3 * size * batch)
    indices = [index for index, _ in samples]
    for start in range(0, len(indices), size):
        assert sorted(indices[start : start + size]) == list(range(size))
    assert len({seed for _, seed in samples}) == len(samples), "two clips share their random numbers"


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    ratios=st.booleans(),
    groups=st.booleans(),
    done=st.integers(0, 7),
    seed=st.integers(0, 2**31),
)
def test_order_resumes_where_it_stopped(
    sizes: list[int], ratios: bool, groups: bool, done: int, seed: int
) -> None:
    def order() -> TrainingOrder:
        return TrainingOrder(
            sizes,
            3,
            seed,
            ratios=[1.0 + n for n in range(len(sizes))] if ratios else None,
            groups=np.arange(sum(sizes)) % 2 if groups else None,
        )

    resumed = order()
    resumed.first_batch = done
    assert items(resumed, 30) == items(order(), 3 * done + 30)[3 * done :]


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_each_batch(monkeypatch: pytest.MonkeyPatch, world_size: int) -> None:
    def order() -> TrainingOrder:
        return TrainingOrder([7, 12], 6, seed=3, ratios=(1, 2), groups=np.arange(19) % 2)

    whole = items(order(), 60)
    monkeypatch.setattr(comm, "get_world_size", lambda: world_size)
    shares = []
    for rank in range(world_size):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        shares.append(items(order(), 60 // world_size))
    assert [item for step in zip(*shares, strict=True) for item in step] == whole


def test_a_batch_contains_one_group() -> None:
    groups = np.array([0, 1, 1, 0, 1])
    indices = [index for index, _ in items(TrainingOrder([5], 4, seed=0, groups=groups), 400)]
    batches = [groups[indices[start : start + 4]] for start in range(0, 400, 4)]
    assert {len(set(batch)) for batch in batches} == {1}
    assert all(60 < count < 100 for count in Counter(indices).values())


def test_ratios_override_sizes() -> None:
    indices = [index for index, _ in items(TrainingOrder([10, 1000], 1, seed=0, ratios=(3, 1)), 4000)]
    first = [index for index in indices if index < 10]
    assert 2850 < len(first) < 3150
    assert max(Counter(first).values()) - min(Counter(first).values()) <= 1


def test_a_subset_is_a_fraction_of_each_dataset() -> None:
    indices = {index for index, _ in items(TrainingOrder([10, 20], 1, seed=0, subset=0.5), 300)}
    assert len(indices) == 15 and len([index for index in indices if index < 10]) == 5


@pytest.mark.parametrize("ratios", [(1,), (1, 0), (1, -1), (1, 1, 1)])
def test_bad_ratios_are_refused(ratios: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="TRAIN_RATIOS must have a number above 0 for each of 2 datasets"):
        TrainingOrder([3, 4], 1, seed=0, ratios=ratios)


def test_batches_that_processes_cannot_share_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    with pytest.raises(InputError, match="IMS_PER_BATCH 3 must be a multiple of the number of processes, 2"):
        TrainingOrder([3], 3, seed=0)


def draw() -> tuple[float, float, float]:
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_own_random_numbers_do_not_change_others() -> None:
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    expected = draw()
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
    with own_random_numbers(5):
        first = draw()
    assert draw() == expected
    with own_random_numbers(5):
        assert draw() == first
    with own_random_numbers(6):
        first = draw()
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
    with pytest.raises(KeyError), own_random_numbers(6):
        assert draw() == first
        raise KeyError
    assert draw() == expected, "they are as before after an error"


def test_derived_seeds_depend_on_every_number() -> None:
    seeds = {derived_seed(*numbers) for numbers in [(0, 1), (1, 0), (0, 1, 1), (0, 2), (2**40, 1)]}
    assert len(seeds) == 5 and all(0 <= seed < 2**32 for seed in seeds)


def test_a_sample_without_a_clip_is_replaced() -> None:
    def mapper(record: dict[str, Any]) -> tuple[int, float] | None:
        return (record["id"], np.random.rand()) if record["id"] == 2 else None

    clips = TrainingClips([{"id": 1}, {"id": 2}, {"id": 3}], mapper)
    assert clips[0, 7][0] == 2
    assert clips[0, 7] == clips[0, 7] and clips[0, 7] != clips[0, 8]


def test_no_sample_has_a_clip() -> None:
    with pytest.raises(InputError, match="100 samples in a row had no clip"):
        TrainingClips([{}], lambda record: None)[0, 0]
