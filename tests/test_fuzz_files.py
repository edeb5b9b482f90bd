"""`make fuzz-files`: a few damaged files for every reader, and what counts as a finding."""

from __future__ import annotations

import os
import time
from pathlib import Path

import fuzz_files
import numpy as np
import pytest
from fuzz_files import READERS, Reader, try_input, try_inputs, write_samples


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("samples")
    write_samples(root)
    return root


@pytest.mark.parametrize("name", READERS)
def test_valid_files_are_read(name: str, samples: Path) -> None:
    for sample in READERS[name].samples:
        READERS[name].read(samples / sample, samples)


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_refused(name: str, samples: Path) -> None:
    for seed in range(40):
        assert try_input(name, seed, samples) is None, f"make fuzz-files ARGS='--only {name} --seed {seed}'"


def fail(*_: object) -> None:
    raise KeyError("a")


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (fail, "KeyError: 'a'"),
        (lambda *_: np.ones(10**9), "MemoryError"),
        (lambda *_: time.sleep(60), "Timeout"),
        (lambda *_: os._exit(3), "ended with 3"),
        (lambda *_: os.abort(), "Aborted"),
    ],
)
def test_findings(monkeypatch: pytest.MonkeyPatch, samples: Path, read: object, text: str) -> None:
    monkeypatch.setattr(fuzz_files, "_SECONDS", 0.5)
    monkeypatch.setitem(READERS, "broken", Reader(["dataset.json"], read))
    count, findings = try_inputs("broken", 7, 2, samples)
    assert findings[0][0] == 7 and text in findings[0][1]
    assert count in (1, 2)


def test_what_is_read_or_refused_is_no_finding(samples: Path) -> None:
    assert try_inputs("results", 0, 20, samples) == (20, [])
