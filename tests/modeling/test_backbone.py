from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_backbone
from networks import resnet_config

from seqformer.errors import InputError
from seqformer.modeling import TimmBackbone

LEVELS = ["res3", "res4", "res5"]


@torch.no_grad()
@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18", "swin_tiny_patch4_window7_224"])
def test_timm_models_return_strides_8_to_32(name: str) -> None:
    backbone = TimmBackbone(name, out_features=LEVELS).eval()
    features = backbone(torch.rand(1, 3, 224, 224))
    shapes = backbone.output_shape()
    assert list(features) == LEVELS
    for level, feature in features.items():
        assert feature.shape == (1, shapes[level].channels, *[224 // shapes[level].stride] * 2)


def test_timm_batch_norm_is_frozen() -> None:
    backbone = TimmBackbone("resnet18", out_features=LEVELS).train()
    before = {name: buffer.clone() for name, buffer in backbone.named_buffers()}
    backbone(torch.rand(2, 3, 64, 64))
    assert all(torch.equal(buffer, before[name]) for name, buffer in backbone.named_buffers())


@torch.no_grad()
def test_features_equal_those_of_timm() -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=[2, 3, 4])
    for norm in (module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        for tensor in (norm.weight, norm.running_var):
            tensor.uniform_(0.5, 1.5)
        for tensor in (norm.bias, norm.running_mean):
            tensor.normal_()
    backbone = TimmBackbone("tf_efficientnet_lite0", out_features=LEVELS)
    backbone.model.load_state_dict(
        {name: t for name, t in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    )
    images = torch.rand(2, 3, 64, 96)
    for expected, feature in zip(model.eval()(images), backbone(images).values(), strict=True):
        torch.testing.assert_close(feature, expected, rtol=1e-4, atol=1e-4)


def test_timm_freezes_up_to_a_stride() -> None:
    def frozen(freeze_at: int) -> list[str]:
        backbone = TimmBackbone("resnet18", out_features=LEVELS, freeze_at=freeze_at)
        return [name for name, p in backbone.named_parameters() if not p.requires_grad]

    assert frozen(0) == []
    assert any("layer1" in name for name in frozen(2))
    assert not any("layer2" in name for name in frozen(2))
    assert any("layer4" in name for name in frozen(5))


def test_timm_weights_from_a_file(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("resnet18")
    path = tmp_path / "resnet18.pth"
    torch.save(model.state_dict(), path)
    backbone = TimmBackbone("resnet18", weights=str(path), out_features=LEVELS)
    assert torch.equal(backbone.model.layer4[1].conv2.weight, model.layer4[1].conv2.weight)


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("nonsense", "", "no model 'nonsense'"),
        ("vit_tiny_patch16_224", "", "not those of res3, res5"),
        ("resnet18", "missing.pth", "no file 'missing.pth'"),
        ("resnet18", "broken.pth", "cannot be loaded into 'resnet18'"),
    ],
)
def test_bad_timm_options_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, weights: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.pth").write_bytes(b"no weights")
    with pytest.raises(InputError, match=message):
        TimmBackbone(name, weights=weights, out_features=LEVELS)


def published_swin_config() -> CfgNode:
    cfg = resnet_config()
    cfg.MODEL.BACKBONE.NAME = "D2SwinTransformer"
    return cfg


@torch.no_grad()
def test_swin_under_its_published_name() -> None:
    backbone = build_backbone(published_swin_config()).eval()
    features = backbone(torch.rand(1, 3, 64, 96))
    assert {name: tuple(f.shape[1:]) for name, f in features.items()} == {
        "res2": (96, 16, 24),
        "res3": (192, 8, 12),
        "res4": (384, 4, 6),
        "res5": (768, 2, 3),
    }
    assert backbone.output_shape()["res4"].stride == 16


def test_resnext101_32x8d() -> None:
    cfg = resnet_config()
    cfg.MODEL.RESNETS.DEPTH = 101
    cfg.MODEL.RESNETS.NUM_GROUPS = 32
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 8
    assert build_backbone(cfg).output_shape()["res5"].channels == 2048
