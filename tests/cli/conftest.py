from __future__ import annotations

import json

import pytest
from networks import tiny_config
from safetensors.torch import save_file

from seqformer import SeqFormer


@pytest.fixture
def model(tmp_path) -> list[str]:
    """Options for a small model with random weights, half of whose predictions are results."""
    config, weights = tmp_path / "model" / "config.yaml", tmp_path / "model" / "weights.safetensors"
    config.parent.mkdir()
    cfg = tiny_config(NUM_CLASSES=2, NUM_OBJECT_QUERIES=20, CLIP_LENGTH=3, APPLY_CLS_THRES=0.005)
    cfg.INPUT.MIN_SIZE_TEST = 64
    config.write_text(cfg.dump())
    state = {name: tensor.clone() for name, tensor in SeqFormer(cfg).state_dict().items()}
    save_file(state, weights, {"thing_classes": json.dumps(["cat", "dog"])})
    return ["--config-file", str(config), "--weights", str(weights), "--confidence-threshold", "0"]
