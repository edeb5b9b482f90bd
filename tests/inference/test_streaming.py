"""Streaming gives the same results as the whole video, with the documented latency."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import tiny_model

from seqformer import SeqFormer
from seqformer.errors import InputError
from seqformer.formats.rle import decode_mask
from seqformer.inference import StreamingPredictor
from seqformer.structures import FrameResult, VideoResult
from seqformer.tracking import MotionOptions


class KeepSize:
    """Replaces Detectron2's resize and keeps frames as they are."""

    def get_transform(self, frame: np.ndarray) -> KeepSize:
        return self

    def apply_image(self, frame: np.ndarray) -> np.ndarray:
        return frame


@pytest.fixture(scope="module")
def model(device: torch.device) -> SeqFormer:
    torch.manual_seed(0)
    model = tiny_model(CLIP_MATCHING=True).to(device)
    for head in model.network.detr.class_embed:
        torch.nn.init.constant_(head.bias, -1.0)
    return model


def make_frames(count: int) -> list[np.ndarray]:
    """Slowly changing noise, so that some instances are tracked and others are not."""
    noise = np.random.default_rng(0).random((count + 4, 40, 56, 3))
    smooth = np.stack([noise[t : t + 4].mean(0) for t in range(count)])
    return list((255 * smooth).astype(np.uint8))


def stream(
    model: SeqFormer, length: int, stride: int, clips: bool = True, pairs: bool = False, motion: float = 0.0
):
    options = model.options.__class__(
        clip_matching=clips,
        clip_length=length,
        clip_stride=stride,
        protocol="pairs" if pairs else "queries",
        threshold=0.27,
        motion=MotionOptions(weight=motion),
    )
    return StreamingPredictor(model.network, options, resize=KeepSize()), options


def whole(model: SeqFormer, frames: list[np.ndarray], options) -> dict:
    model.options = options
    return model([{"image": [torch.from_numpy(f.transpose(2, 0, 1).copy()) for f in frames]}])


def collect(results: list[FrameResult], predictor: StreamingPredictor) -> VideoResult:
    tracklets = predictor.tracklets()
    tracklets.add(results)
    return tracklets.result(predictor.size)


@pytest.mark.parametrize(
    ("count", "length", "stride", "clips", "pairs", "motion"),
    [
        (11, 3, 1, True, False, 0.0),
        (11, 4, 3, True, False, 0.0),
        (9, 3, 3, True, False, 0.0),
        (2, 5, 1, True, False, 0.0),
        (1, 1, 1, True, False, 0.0),
        (6, 5, 1, False, False, 0.0),
        (6, 5, 1, False, True, 0.0),
        (11, 3, 1, True, False, 0.7),
        (11, 4, 3, True, False, 0.7),
        (1, 3, 1, True, False, 0.7),
        (6, 5, 1, False, False, 0.7),
    ],
)
def test_the_end_is_the_whole_videos_result(
    model, slack: float, count, length, stride, clips, pairs, motion
) -> None:
    frames = make_frames(count)
    predictor, options = stream(model, length, stride, clips, pairs, motion)
    results = [result for frame in frames for result in predictor.push(frame)] + predictor.finish()
    assert [result.index for result in results] == list(range(count))
    found = collect(results, predictor)
    assert (found.height, found.width, found.length) == (40, 56, count)
    expected = whole(model, frames, options)
    assert found.tracklets
    np.testing.assert_allclose([t.score for t in found.tracklets], expected["pred_scores"], rtol=1e-5 * slack)
    assert [t.label for t in found.tracklets] == expected["pred_labels"]
    differing = 0
    for tracklet, masks in zip(found.tracklets, expected["pred_masks"], strict=True):
        for rle, mask in zip(tracklet.segmentations, masks.numpy(), strict=True):
            differing += (mask != (decode_mask(rle) if rle else 0)).sum()
    assert differing <= 1e-3 * len(found.tracklets) * count * 40 * 56


@pytest.mark.parametrize(("length", "stride"), [(3, 1), (4, 2), (3, 3)])
def test_latency(model, length: int, stride: int) -> None:
    """A frame is final with the last frame of the first clip that begins at or after it."""
    predictor, _ = stream(model, length, stride)
    final = []
    for t, frame in enumerate(make_frames(10)):
        for result in predictor.push(frame):
            first_start = -(-result.index // stride) * stride
            assert t == first_start + length - 1
            assert length - 1 <= t - result.index <= length + stride - 2
            final.append(result.index)
    assert final == list(range(len(final))) and len(final) > 10 - length - stride


@pytest.mark.parametrize("motion", [0.0, 0.7])
def test_every_instance_ends_once_and_is_not_seen_again(model, motion: float) -> None:
    predictor, _ = stream(model, 3, 3, motion=motion)  # clips without overlap: every one has new instances
    results = [result for frame in make_frames(8) for result in predictor.push(frame)] + predictor.finish()
    ended: set[int] = set()
    seen: set[int] = set()
    for result in results:
        ids = {instance.instance_id for instance in result.instances}
        seen |= ids
        assert not ids & ended
        gone = [instance.instance_id for instance in result.ended]
        assert not ended & set(gone)
        ended |= set(gone)
    assert seen and seen <= ended
    if not motion:
        assert len(results[-1].ended) < len(ended), "some ended before the video did"


@pytest.mark.parametrize(
    ("length", "stride", "pause", "motion"),
    [(3, 1, 6, 0.0), (4, 3, 8, 0.0), (3, 1, 2, 0.0), (3, 1, 6, 0.7), (4, 3, 8, 0.7)],
)
def test_resuming_keeps_ids(model, tmp_path, length, stride, pause, motion) -> None:
    frames = make_frames(12)
    predictor, options = stream(model, length, stride, motion=motion)
    whole_run = [result for frame in frames for result in predictor.push(frame)] + predictor.finish()

    first, _ = stream(model, length, stride, motion=motion)
    results = [result for frame in frames[:pause] for result in first.push(frame)]
    torch.save(first.state(), tmp_path / "state.pth")
    second, _ = stream(model, length, stride, motion=motion)
    second.restore(torch.load(tmp_path / "state.pth", weights_only=True))
    assert second.num_final == len(results)
    results += [r for frame in frames[second.num_final :] for r in second.push(frame)] + second.finish()
    assert results == whole_run


def test_a_frame_of_another_size(model) -> None:
    predictor, _ = stream(model, 3, 1)
    frames = make_frames(5)
    results = [result for frame in frames for result in predictor.push(frame)]
    with pytest.raises(InputError, match="frame 5 is 40x40, the first is 56x40"):
        predictor.push(frames[0][:, :40])
    results += predictor.finish()
    assert [result.index for result in results] == list(range(5)), "what came before is kept"


def test_a_stream_without_frames(model) -> None:
    assert stream(model, 3, 1)[0].finish() == []


def test_nothing_comes_after_the_end(model, tmp_path) -> None:
    predictor, _ = stream(model, 3, 1)
    frames = make_frames(4)
    before = [result for frame in frames for result in predictor.push(frame)]
    torch.save(predictor.state(), tmp_path / "state.pth")
    predictor.finish()
    with pytest.raises(InputError, match=r"push\(\) after finish\(\)"):
        predictor.push(frames[0])
    with pytest.raises(InputError, match=r"finish\(\) after finish\(\)"):
        predictor.finish()
    predictor.restore(torch.load(tmp_path / "state.pth", weights_only=True))
    for frame in frames[len(before) :]:
        predictor.push(frame)
    assert len(predictor.finish()) == 2, "what goes on from a saved state has not ended"


def test_invalid_frame(model) -> None:
    """The message gives the frame number, and earlier frames are not lost."""
    predictor, _ = stream(model, 3, 1)
    frames = make_frames(3)
    results = [result for frame in frames for result in predictor.push(frame)]
    with pytest.raises(InputError, match="frame 3: array of float64"):
        predictor.push(frames[0] / 255)
    results += predictor.finish()
    assert [result.index for result in results] == [0, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_format": "GRAY"}, "`input_format` must be RGB or BGR"),
        ({"encoded_together": 0}, "`encoded_together` must be at least 1"),
        ({"tensor_layout": "HW"}, "`tensor_layout` must be one of CHW, HWC"),
    ],
)
def test_invalid_arguments(model, arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        StreamingPredictor(model.network, model.options, resize=KeepSize(), **arguments)
