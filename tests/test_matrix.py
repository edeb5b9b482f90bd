"""The plan of `make matrix`."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch
from matrix import NUMERIC, plan


@pytest.fixture
def best(monkeypatch: pytest.MonkeyPatch):
    """Sets what PyTorch says is the best instruction set."""
    return lambda name: monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: name)


def test_every_instruction_set_with_one_thread_and_two(best) -> None:
    best("AVX512")
    runs = plan(short=False, more=["-x"])
    assert {run[:2] for run in runs} == set(product(["DEFAULT", "AVX2", "AVX512"], [1, 2]))
    orders = {argument for run in runs for argument in run.arguments if "seed" in argument}
    assert orders == {f"--random-order-seed={seed}" for seed in (1, 2, 3)}
    assert all(run.arguments[0] == "--random-order" and run.arguments[-1] == "-x" for run in runs)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("AVX512", ["DEFAULT", "AVX2"]),
        ("AVX2", ["DEFAULT"]),
        ("DEFAULT", ["DEFAULT"]),
        ("SVE256", ["DEFAULT"]),
    ],
)
def test_the_short_form_runs_the_lesser_sets(best, repository: Path, name: str, expected: list[str]) -> None:
    best(name)
    runs = plan(short=True, more=[])
    assert [(run.capability, run.threads) for run in runs] == [(found, 1) for found in expected]
    assert {path for run in runs for path in run.arguments if path.startswith("tests/")} == set(NUMERIC)
    assert [path for path in NUMERIC if not (repository / path).exists()] == []
