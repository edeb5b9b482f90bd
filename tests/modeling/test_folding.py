from __future__ import annotations

import copy
import pickle

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_backbone
from networks import tiny_config, tiny_model
from torch import Tensor, nn

from seqformer.modeling import TimmBackbone
from seqformer.modeling.folding import FoldedCopy, SameConvolution, fold_batch_norms

LEVELS = ["res3", "res4", "res5"]


def as_after_training(module: nn.Module) -> nn.Module:
    """Gives frozen batch norms other numbers than those of an identity."""
    for norm in module.modules():
        if isinstance(norm, FrozenBatchNorm2d):
            norm.weight.uniform_(0.5, 1.5)
            norm.running_var.uniform_(0.5, 1.5)
            norm.bias.normal_(std=0.3)
            norm.running_mean.normal_(std=0.3)
    return module.eval()


def assert_close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


def count(module: nn.Module) -> int:
    return sum(isinstance(child, FrozenBatchNorm2d) for child in module.modules())


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 96), (75, 101)])
@pytest.mark.parametrize(
    "name", ["tf_efficientnet_lite0", "resnet18", "tf_mobilenetv3_small_minimal_100", "resnetv2_50"]
)
def test_folded_timm_models_are_equal(name: str, size: tuple[int, int]) -> None:
    backbone = as_after_training(TimmBackbone(name, out_features=LEVELS))
    names = list(backbone.state_dict())
    images = torch.randn(2, 3, *size)
    folded = fold_batch_norms(backbone, images)
    for expected, feature in zip(backbone(images).values(), folded(images).values(), strict=True):
        assert_close(feature, expected)
    assert count(folded) < count(backbone) or count(backbone) == 0
    assert list(backbone.state_dict()) == names, "the original must stay as it is"


@torch.no_grad()
def test_a_folded_resnet_is_equal_and_has_no_norms() -> None:
    backbone = as_after_training(build_backbone(tiny_config()))
    images = torch.randn(2, 3, 64, 96)
    folded = fold_batch_norms(backbone, images)
    for expected, feature in zip(backbone(images).values(), folded(images).values(), strict=True):
        assert_close(feature, expected)
    assert count(folded) == 0 < count(backbone)


class Added(nn.Module):
    """A norm that is registered after a convolution, but follows a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.bn = FrozenBatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x) + x)


@torch.no_grad()
def test_a_norm_that_does_not_follow_a_convolution_stays() -> None:
    module = as_after_training(Added())
    images = torch.randn(1, 3, 8, 8)
    folded = fold_batch_norms(module, images)
    assert count(folded) == 1
    assert torch.equal(folded(images), module(images))


def test_a_module_without_norms_is_not_copied() -> None:
    module = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    images = torch.randn(1, 3, 8, 8)
    assert fold_batch_norms(module, images) is module
    assert FoldedCopy().of(module, images) is module


def test_unfolded_tensors_are_shared() -> None:
    module = nn.Sequential(nn.Conv2d(3, 3, 1), as_after_training(Added()))
    folded = fold_batch_norms(module, torch.randn(1, 3, 8, 8))
    assert folded is not module and folded[0].weight is module[0].weight


@torch.no_grad()
def test_the_copy_follows_the_tensors() -> None:
    """In-place changes, loading, other types and replaced tensors; without a change the copy is kept."""
    module, copies = as_after_training(build_backbone(tiny_config())), FoldedCopy()
    images = torch.randn(1, 3, 64, 64)
    convolution = module.stem.conv1

    def check() -> None:
        expected, actual = module(images)["res5"], copies.of(module, images)(images)["res5"]
        assert_close(actual, expected)

    check()
    assert copies.of(module, images) is copies.of(module, images)
    convolution.weight.mul_(2)
    check()
    module.load_state_dict({name: t * 1.1 for name, t in module.state_dict().items()})
    check()
    convolution.norm.bias = torch.ones_like(convolution.norm.bias)
    check()
    module.double()
    images = images.double()
    check()


def test_copies_and_pickles_are_empty() -> None:
    module, copies = as_after_training(build_backbone(tiny_config())), FoldedCopy()
    copies.of(module, torch.randn(1, 3, 64, 64))
    for other in (copy.deepcopy(copies), pickle.loads(pickle.dumps(copies))):
        assert isinstance(other, FoldedCopy) and other._copy is None and not other._tensors


def test_a_network_folds_only_for_inference() -> None:
    """Gradients and training see the norms; what was trained is seen by the next inference."""
    network = tiny_model().network.detr
    as_after_training(network)
    images = torch.randn(1, 3, 64, 64)
    names = list(network.state_dict())
    plain = [feature.detach() for feature in network.features(images)]
    with torch.no_grad():
        folded = network.features(images)
    for feature, expected in zip(folded, plain, strict=True):
        assert_close(feature, expected)
    assert network._folded._copy is not None and list(network.state_dict()) == names
    network.train()
    assert network._folded._copy is None
    sum(feature.sum() for feature in network.features(images)).backward()
    weight = network.get_parameter("backbone.0.backbone.res4.0.conv1.weight")
    assert weight.grad is not None and weight.grad.abs().max() > 0
    weight.data.add_(1)  # not counted as a change by PyTorch
    network.eval()
    with torch.no_grad():
        changed = network.features(images)
    for feature, expected in zip(changed, network.features(images), strict=True):
        assert_close(feature, expected.detach())
    assert not torch.allclose(changed[-1], folded[-1])


def test_a_frozen_backbone_is_folded_in_training_too() -> None:
    network = as_after_training(tiny_model().network.detr)
    images = torch.randn(1, 3, 64, 64)
    expected = [feature.detach() for feature in network.features(images)]
    network.train()
    assert network._folded._copy is None
    backbone = network.backbone.requires_grad_(False)
    features = network.features(images)
    assert network._folded._copy is not None
    for feature, plain in zip(features, expected, strict=True):
        assert_close(feature.detach(), plain)
    sum(feature.sum() for feature in features).backward()
    assert network.input_proj[0][0].weight.grad is not None
    assert all(parameter.grad is None for parameter in backbone.parameters())
    network.features(images.requires_grad_())[-1].square().sum().backward()
    assert images.grad is not None and images.grad.abs().max() > 0


@torch.no_grad()
@pytest.mark.parametrize("size", [(8, 12), (9, 12), (7, 5)])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 2), (3, 1), (2, 2), (7, 4)])
def test_same_convolutions_are_equal_at_any_size(kernel: int, stride: int, size: tuple[int, int]) -> None:
    layers = pytest.importorskip("timm.layers")
    convolution = layers.Conv2dSame(4, 6, kernel, stride=stride, groups=2)
    x = torch.randn(2, 4, *size)
    assert_close(SameConvolution(convolution)(x), convolution(x))
