"""The variants of benchmarks/claims.py are what they are said to be."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from seqformer import SeqFormer
from seqformer.errors import InputError
from seqformer.formats.rle import encode_masks
from seqformer.structures import Tracklet, VideoResult

from .networks import tiny_model

T = 3


@pytest.fixture(scope="module")
def claims() -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks/claims.py"
    spec = importlib.util.spec_from_file_location("claims", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["claims"] = module  # dataclasses look for it there
    spec.loader.exec_module(module)
    return module


def decode(model: SeqFormer) -> list:
    torch.manual_seed(0)
    frames = model.encode([torch.rand(3, 64, 64) * 255 for _ in range(T)])
    for layer in model.network.detr.transformer.decoder.layers:
        nn.init.normal_(layer.time_attention_weights.weight, std=0.5)
    return model.network.decode(frames, T)


@torch.no_grad()
def test_shared_box_queries_are_the_same_in_every_frame(claims: ModuleType) -> None:
    model = tiny_model()
    plain = decode(model)
    claims.share_box_queries(model)
    shared = decode(model)
    for before, after in zip(plain, shared, strict=True):
        assert not torch.allclose(before.box_queries[:, 0], before.box_queries[:, 1])
        assert after.box_queries.shape[1] == 1
        assert after.boxes.shape == before.boxes.shape
        assert torch.equal(after.boxes[:, :1].expand_as(after.boxes), after.boxes)
    torch.testing.assert_close(shared[0].box_queries, plain[0].box_queries.mean(1, keepdim=True))


def test_fixed_temporal_weights_are_equal_and_not_trained(claims: ModuleType) -> None:
    model = tiny_model()
    nn.init.normal_(model.network.detr.transformer.decoder.layers[0].time_attention_weights.weight)
    claims.fix_temporal_weights(model)
    frames = model.encode([torch.rand(3, 64, 64) * 255 for _ in range(T)])
    outputs = model.network.decode(frames, T)
    for output in outputs:
        torch.testing.assert_close(output.temporal_weights, torch.full_like(output.temporal_weights, 1 / T))
    outputs[-1].instance_queries.sum().backward()
    layer = model.network.detr.transformer.decoder.layers[0]
    assert layer.time_attention_weights.weight.grad is None and layer.linear1.weight.grad is not None


class Boxes(nn.Module):
    """A model that returns a square at each (x, class, score) that the only value of a frame stands for."""

    def __init__(self, frames: list[list[tuple[int, int, float]]]):
        super().__init__()
        self.frames = frames

    def forward(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        (frame,) = inputs[0]["image"]
        result = VideoResult(10, 100, 1)
        for number, (x, label, score) in enumerate(self.frames[int(frame)]):
            mask = np.zeros((1, 10, 100), dtype=bool)
            mask[0, :, x : x + 10] = True
            result.tracklets.append(Tracklet(number, label, score, encode_masks(mask), size=(10, 100)))
        return {"video_result": result}


def linked(claims: ModuleType, frames: list[list[tuple[int, int, float]]]) -> list[Tracklet]:
    model = claims.FrameByFrame(Boxes(frames))
    result = model([{"image": [torch.tensor(t) for t in range(len(frames))]}])["video_result"]
    assert (result.height, result.width, result.length) == (10, 100, len(frames))
    return result.tracklets


def test_instances_of_successive_frames_are_linked_by_overlap(claims: ModuleType) -> None:
    first, second = linked(claims, [[(0, 0, 0.5), (40, 0, 0.9)], [(44, 0, 0.7), (3, 0, 0.1)]])
    assert first.boxes[:, 0].tolist() == [0, 3] and second.boxes[:, 0].tolist() == [40, 44]
    assert first.score == pytest.approx(0.3) and second.score == pytest.approx(0.8)


def test_an_instance_that_jumps_is_a_new_one(claims: ModuleType) -> None:
    first, second = linked(claims, [[(0, 0, 0.5)], [(20, 0, 0.5)]])
    assert [mask is not None for mask in first.segmentations] == [True, False]
    assert [mask is not None for mask in second.segmentations] == [False, True]


@pytest.mark.parametrize(("gap", "count"), [(5, 1), (6, 2)])
def test_an_instance_is_continued_after_a_few_frames(claims: ModuleType, gap: int, count: int) -> None:
    assert len(linked(claims, [[(0, 0, 0.5)], *[[]] * gap, [(0, 0, 0.5)]])) == count


def test_classes_of_one_instance_are_averaged_over_its_frames(claims: ModuleType) -> None:
    results = linked(claims, [[(0, 0, 0.5)], [(0, 1, 0.9)]])
    assert [(t.instance_id, t.label, t.score) for t in results] == [(0, 0, 0.25), (0, 1, 0.45)]


@pytest.mark.parametrize("name", ["none", "frames-0", "frames-"])
def test_unknown_variants(claims: ModuleType, name: str) -> None:
    with pytest.raises(InputError, match=f"no variant '{name}'"):
        claims.variant(name)
    assert claims.variant("frames-5").options == ("INPUT.SAMPLING_FRAME_NUM", "5")


@pytest.mark.parametrize("name", ["10", "0/5", "10/0", "clips"])
def test_unknown_protocols(claims: ModuleType, name: str) -> None:
    with pytest.raises(InputError, match="must be whole or LENGTH/STRIDE"):
        claims.clip_options(name)
    assert claims.clip_options("10/5")["clip_stride"] == 5
