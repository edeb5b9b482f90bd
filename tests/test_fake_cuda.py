"""The network and its losses on CUDA tensors without a GPU: shapes and devices are computed, values are not.

An operation on tensors of two devices is an error here, as it is on a GPU. The backward pass needs one.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances
from networks import tiny_config
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from seqformer.meta_arch import SeqFormer
from seqformer.modeling import matcher


def fake_model(**options: object) -> SeqFormer:
    with torch.device("cuda"):
        return SeqFormer(tiny_config(**options))


def clip(height: int, width: int, instances: int) -> dict[str, Any]:
    """Returns what the dataset mapper does, on the CPU: three frames."""
    frames = []
    for _ in range(3):
        frame = Instances((height, width))
        frame.gt_masks = BitMasks(torch.zeros(instances, height, width, dtype=torch.bool))
        frame.gt_boxes = Boxes(torch.zeros(instances, 4))
        frame.gt_classes = torch.zeros(instances, dtype=torch.int64)
        frame.gt_ids = torch.zeros(instances, dtype=torch.int64)
        frames.append(frame)
    return {"image": [torch.zeros(3, height, width, dtype=torch.uint8)] * 3, "instances": frames}


def first_queries(costs: Tensor, counts: list[int], groups: int) -> tuple[Tensor, list[int]]:
    """Stands in for the assignment, which needs values: as many pairs, all of the same query."""
    assert costs.device.type == "cpu", "scipy needs the costs on the CPU"
    layers, instances, _ = costs.shape
    pairs = [count * layers * groups for count in counts]
    return torch.zeros(4, layers * groups * instances, dtype=torch.int64), pairs


@pytest.mark.parametrize("points", [0, 50])
def test_training(monkeypatch: pytest.MonkeyPatch, points: int) -> None:
    monkeypatch.setattr(matcher, "assign", first_queries)
    with FakeTensorMode():
        model = fake_model(QUERY_GROUPS=2, TRAIN_NUM_POINTS=points).train()
        clips = [clip(64, 80, 2), clip(48, 90, 0), clip(60, 60, 3)]
        losses = model(clips)
    assert len(losses) == 3 * 5
    assert {(loss.device.type, loss.shape, loss.dtype) for loss in losses.values()} == {
        ("cuda", (), torch.float32)
    }


def test_inference() -> None:
    with FakeTensorMode(), torch.no_grad():
        model = fake_model().eval()
        frames = model.encode([torch.zeros(3, 70, 100, dtype=torch.uint8)] * 4)
        outputs = model.network.decode(frames, 4)
        masks = model.network.masks(
            frames, outputs[-1].instance_queries[0, :8], outputs[-1].reference[0, :, :8]
        )
    assert masks.shape == (8, 4, 96 // 4, 128 // 4)
    assert {t.device.type for t in (masks, frames.memory, outputs[-1].boxes)} == {"cuda"}
