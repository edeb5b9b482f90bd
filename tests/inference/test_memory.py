"""AUTO_MEMORY_GB chooses between one clip and several, by the memory that a frame needs."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from networks import tiny_config, tiny_model
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from seqformer import SeqFormer
from seqformer.inference import VideoPredictor
from seqformer.inference.memory import frame_bytes
from seqformer.inference.video import DecodedClip, VideoInference

LOG = "seqformer.inference.video"


class PeakBytes(TorchDispatchMode):
    """Peak memory, in bytes, of the tensors created in the block."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self.now = 0
        self._live: dict[int, int] = {}

    def __torch_dispatch__(self, func: Callable, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in self._live:
                storage = tensor.untyped_storage()
                self._live[storage.data_ptr()] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._free, storage.data_ptr())
        return result

    def _free(self, address: int) -> None:
        self.now -= self._live.pop(address)


@torch.no_grad()
def decode_peak(model: SeqFormer, num_frames: int) -> tuple[int, int]:
    """Peak memory of decoding a video as one clip, and the estimate of ``frame_bytes``."""
    found = []

    def watch(clip: DecodedClip) -> None:
        found.append((memory.peak, frame_bytes(model.network, clip.frames, model.options.num_candidates)))

    inference = VideoInference(model.network, model.options, observer=watch)
    with PeakBytes() as memory:
        for _ in range(num_frames // 4):
            list(inference.push([torch.rand(3, 90, 150) * 255] * 4))
        memory.peak = 0
        list(inference.finish())
    (result,) = found
    return result


@pytest.mark.parametrize(
    "options", [{}, {"HIDDEN_DIM": 256, "NHEADS": 8, "DEC_LAYERS": 6}, {"NUM_OBJECT_QUERIES": 20}]
)
def test_estimated_memory_of_a_frame(options: dict) -> None:
    """Compared with the additional memory that 16 more frames need in a whole video."""
    model = tiny_model(**options)
    (small, _), (large, estimate) = decode_peak(model, 16), decode_peak(model, 32)
    assert (large - small) / 16 <= estimate <= 1.5 * (large - small) / 16


@pytest.fixture(scope="module")
def model() -> SeqFormer:
    torch.manual_seed(0)
    return tiny_model(APPLY_CLS_THRES=0.009, CLIP_LENGTH=3)


def images(count: int) -> list[Tensor]:
    noise = torch.rand(count + 4, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    return [255 * noise[t : t + 4].mean(0) for t in range(count)]


def with_options(model: SeqFormer, **options: Any) -> SeqFormer:
    model.options = model.options.__class__(threshold=0.009, clip_length=3, **options)
    return model


def cost(model: SeqFormer) -> float:
    """Memory that a frame needs, GB."""
    with torch.no_grad():
        return frame_bytes(model.network, model.encode(images(1)), model.options.num_candidates) / 1e9


@pytest.mark.parametrize(("budget", "by_clips"), [(6, False), (5.9, True)])
def test_the_models_evaluation(model, caplog, budget: float, by_clips: bool) -> None:
    """A budget of six frames holds six."""
    caplog.set_level(logging.INFO, LOG)
    video = [{"image": images(6)}]
    expected = with_options(model, clip_matching=by_clips)(video)
    found = with_options(model, clip_matching=not by_clips, auto_memory_gb=budget * cost(model))(video)
    assert found["pred_scores"] == expected["pred_scores"] and found["pred_scores"]
    assert found["pred_labels"] == expected["pred_labels"]
    assert torch.equal(torch.stack(found["pred_masks"]), torch.stack(expected["pred_masks"]))
    (record,) = caplog.records
    how = "clips of 3 frames, stride 1" if by_clips else "the whole video is one clip"
    assert record.getMessage() == (
        f"6 frames of {1e3 * cost(model):.1f} MB need {6 * cost(model):.2f} GB, "
        f"MODEL.SeqFormer.AUTO_MEMORY_GB is {budget * cost(model):g}: {how}"
    )


@pytest.fixture
def predictor(tmp_path) -> VideoPredictor:
    cfg = tiny_config(APPLY_CLS_THRES=0.009, CLIP_LENGTH=3)
    cfg.INPUT.MIN_SIZE_TEST = 40
    torch.manual_seed(0)
    torch.save({"model": build_model(cfg).state_dict()}, tmp_path / "model.pth")
    cfg.MODEL.WEIGHTS = str(tmp_path / "model.pth")
    return VideoPredictor(cfg)


def pictures(count: int) -> list[np.ndarray]:
    return [image.permute(1, 2, 0).to(torch.uint8).numpy() for image in images(count)]


class Announced:
    """An iterator of frames that announces their number."""

    def __init__(self, frames: list[np.ndarray], length: int):
        self._frames, self._length = frames, length

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self._frames)

    def __length_hint__(self) -> int:
        return self._length


def test_the_predictor(predictor, caplog) -> None:
    """Uses the announced number of frames; cuts clips if it is unknown, or if more frames come than fit."""
    caplog.set_level(logging.INFO, LOG)
    frames = pictures(10)
    model = predictor.model
    with_options(model)
    whole = predictor(frames)
    clips = (with_options(model, clip_matching=True), predictor(frames))[1]
    assert whole.tracklets and clips.tracklets and whole != clips
    assert not caplog.records
    with_options(model, auto_memory_gb=20 * cost(model))
    assert predictor(frames) == predictor(Announced(frames, 12)) == whole
    assert predictor(iter(frames)) == whole, "a list's iterator knows its rest"
    assert predictor(frame for frame in frames) == clips
    assert "length unknown, a frame needs" in caplog.messages[-1]
    caplog.clear()
    with_options(model, auto_memory_gb=6.5 * cost(model))
    assert predictor(frames) == clips
    assert predictor(Announced(frames, 5)) == clips, "a header that lies"
    assert len(caplog.messages) == 3
    assert caplog.messages[1].startswith("5 frames") and caplog.messages[1].endswith("is one clip")
    assert caplog.messages[2].startswith("8 frames") and caplog.messages[2].endswith("stride 1")


def test_streams(predictor, tmp_path) -> None:
    """A stream of unknown length returns frames as soon as they are final, even when resumed."""
    model = with_options(predictor.model, auto_memory_gb=1.0)
    frames = pictures(8)

    def last(**arguments: Any) -> list:
        stream = predictor.stream(**arguments)
        return [len(stream.push(frame)) for frame in frames] + [len(stream.finish())]

    assert last() == last(clip_matching=True) == last(clip_matching=True, length=8)
    assert last()[2:] == [1] * 6 + [2]
    assert last(length=8) == [0] * 8 + [8]

    with_options(model, auto_memory_gb=4.5 * cost(model))
    whole_run = predictor.stream(length=4)
    expected = [r for frame in frames for r in whole_run.push(frame)] + whole_run.finish()
    first, second = predictor.stream(length=4), predictor.stream(length=4)
    results = [result for frame in frames[:6] for result in first.push(frame)]
    assert results, "too many frames came"
    torch.save(first.state(), tmp_path / "state.pth")
    second.restore(torch.load(tmp_path / "state.pth", weights_only=True))
    results += [r for frame in frames[len(results) :] for r in second.push(frame)] + second.finish()
    assert results == expected
