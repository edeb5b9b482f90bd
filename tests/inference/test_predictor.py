from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from networks import tiny_config, tiny_model
from PIL import Image
from pycocotools import mask as mask_codec

from seqformer.checkpoints import write_state
from seqformer.errors import InputError
from seqformer.inference import VideoPredictor


@pytest.fixture(scope="module")
def cfg(tmp_path_factory: pytest.TempPathFactory) -> CfgNode:
    """A tiny model with random weights and class probabilities high enough for results."""
    torch.manual_seed(0)
    model = tiny_model()
    for head in model.network.detr.class_embed:
        torch.nn.init.constant_(head.bias, -1.0)
    path = tmp_path_factory.mktemp("weights") / "model.pth"
    torch.save({"model": model.state_dict()}, path)
    cfg = tiny_config(CLIP_MATCHING=True, CLIP_LENGTH=3, CLIP_STRIDE=2)
    cfg.MODEL.WEIGHTS = str(path)
    cfg.INPUT.MIN_SIZE_TEST = 48
    cfg.INPUT.MAX_SIZE_TEST = 96
    return cfg


def make_frames(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, 60, 80, 3), dtype=np.uint8))


def test_agrees_with_the_model_on_the_resized_frames(cfg: CfgNode) -> None:
    frames = make_frames(6)
    predictor = VideoPredictor(cfg)
    result = predictor(iter(frames))
    assert (result.height, result.width, result.length) == (60, 80, 6)
    resize = predictor.resize.get_transform(frames[0])
    images = [torch.from_numpy(resize.apply_image(f).transpose(2, 0, 1).copy()) for f in frames]
    expected = predictor.model([{"image": images, "height": 60, "width": 80}])
    assert result.tracklets
    assert [t.score for t in result.tracklets] == expected["pred_scores"]
    assert [t.label for t in result.tracklets] == expected["pred_labels"]
    for tracklet, masks in zip(result.tracklets, expected["pred_masks"], strict=True):
        assert len(tracklet.segmentations) == 6
        for rle, mask in zip(tracklet.segmentations, masks.numpy(), strict=True):
            assert (rle is None) == (not mask.any())
            if rle is not None:
                assert np.array_equal(mask_codec.decode(rle), mask)


def test_frames_are_processed_one_by_one(cfg: CfgNode) -> None:
    """Masks are final before all frames were read, so a long video is never in memory as a whole."""
    taken = []

    def source():
        for i, frame in enumerate(make_frames(20)):
            taken.append(i)
            yield frame

    predictor = VideoPredictor(cfg)
    encode, seen = predictor.network.encode, []
    predictor.network.encode = lambda images: (seen.append(len(taken)), encode(images))[1]
    assert predictor(source()).length == 20
    assert seen == [4, 8, 12, 16, 20]


def test_bgr_models_get_bgr(cfg: CfgNode) -> None:
    cfg = cfg.clone()
    frames = make_frames(2)
    rgb = VideoPredictor(cfg)(frames)
    cfg.INPUT.FORMAT = "BGR"
    bgr = VideoPredictor(cfg)([frame[..., ::-1] for frame in frames])
    assert rgb.tracklets
    assert [t.score for t in rgb.tracklets] == [t.score for t in bgr.tracklets]


def test_frames_in_any_form_give_the_same_result(cfg: CfgNode) -> None:
    frames = make_frames(3)
    predictor = VideoPredictor(cfg)
    expected = predictor(frames)
    assert expected.tracklets
    assert predictor(map(Image.fromarray, frames)) == expected
    video = torch.from_numpy(np.stack(frames))  # T, H, W, 3
    assert predictor(video, tensor_layout="HWC") == expected
    assert predictor(video.permute(0, 3, 1, 2)) == expected
    traces = [
        predictor.trace(video, tensor_layout="HWC", with_masks=False),
        predictor.trace(frames, with_masks=False),
    ]
    assert np.array_equal(traces[0].boxes, traces[1].boxes)


def test_invalid_frames(cfg: CfgNode) -> None:
    """They were treated as uint8 RGB and gave wrong scores."""
    predictor, frames = VideoPredictor(cfg), make_frames(2)
    for wrong in (frames[1] / 255, frames[1][..., :1], frames[1][..., 0], frames[1].astype(np.uint16)):
        with pytest.raises(InputError, match="frame 1: array of"):
            predictor([frames[0], wrong])
        with pytest.raises(InputError, match="frame 0: array of"):
            predictor.trace([wrong])
    with pytest.raises(InputError, match=r"frame 0: tensor of uint8, .* \(3, H, W\)"):
        predictor(torch.from_numpy(np.stack(frames)))


def test_classes_have_the_names_of_the_weights(cfg: CfgNode, tmp_path: Path) -> None:
    frames = make_frames(2)
    plain = VideoPredictor(cfg)
    assert {t.class_name for t in plain(frames).tracklets} <= {f"class {i}" for i in range(7)}
    named = cfg.clone()
    named.MODEL.WEIGHTS = str(tmp_path / "named.safetensors")
    names = ["ant", "bee", "cat", "dog", "emu", "fox", "gnu"]
    write_state(named.MODEL.WEIGHTS, plain.model.state_dict(), {"thing_classes": json.dumps(names)})
    predictor = VideoPredictor(named)
    assert predictor.class_names == names
    result = predictor(frames)
    assert result.tracklets and all(t.class_name == names[t.label] for t in result.tracklets)
    assert {t.size for t in result.tracklets} == {(60, 80)}
    assert [e["category_id"] for e in result.to_json()] == [t.label + 1 for t in result.tracklets]


def test_bad_videos(cfg: CfgNode) -> None:
    predictor = VideoPredictor(cfg)
    with pytest.raises(InputError, match="no frames"):
        predictor([])
    frames = make_frames(2)
    with pytest.raises(InputError, match="frame 1 is 60x60, the first is 80x60"):
        predictor([frames[0], frames[1][:, :60]])


def test_weights_are_needed(cfg: CfgNode) -> None:
    cfg = cfg.clone()
    cfg.MODEL.WEIGHTS = ""
    with pytest.raises(InputError, match="no weights"):
        VideoPredictor(cfg)


def with_precision(cfg: CfgNode, precision: str) -> CfgNode:
    cfg = cfg.clone()
    cfg.MODEL.SeqFormer.PRECISION = precision
    return cfg


def test_precision_reduces_the_loaded_weights(cfg: CfgNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    exact = VideoPredictor(cfg)
    reduced = VideoPredictor(with_precision(cfg, "bf16"))
    state = reduced.model.state_dict()
    assert state.keys() == exact.model.state_dict().keys()
    for name, value in exact.model.state_dict().items():
        assert torch.equal(value.to(state[name].dtype), state[name])
    assert torch.bfloat16 in {value.dtype for value in state.values()}
    frames = make_frames(6)
    scores, others = ([t.score for t in predictor(frames).tracklets] for predictor in (exact, reduced))
    assert max(others) == pytest.approx(max(scores), abs=0.02) and others != scores
    streamed = reduced.stream()
    results = [result for frame in frames for result in streamed.push(frame)] + streamed.finish()
    assert len(results) == 6 and any(result.instances for result in results)


def test_reduced_weights_are_not_saved(cfg: CfgNode, tmp_path: Path) -> None:
    predictor = VideoPredictor(with_precision(cfg, "int8"))
    for save in (predictor.save, predictor.push_to_hub):
        with pytest.raises(InputError, match="PRECISION fp32"):
            save(tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())
