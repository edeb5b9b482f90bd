"""A toy dataset, written once per session."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from seqformer.data.toy import make_toy_dataset


class ToyDataset(NamedTuple):
    train: Path
    val: Path
    frames: Path


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyDataset:
    """Three training videos and one validation video, 8 frames of 48x64 pixels; read-only."""
    root = tmp_path_factory.mktemp("toy")
    return ToyDataset(*make_toy_dataset(root, num_train=3, num_val=1, size=(48, 64)))
