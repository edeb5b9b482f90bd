"""The optimizer: learning rate and weight decay of each parameter, and gradient clipping."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from torch import nn

from seqformer import add_seqformer_config
from seqformer.engine import build_optimizer
from seqformer.errors import InputError


def config(**solver: Any) -> CfgNode:
    cfg = get_cfg()
    add_seqformer_config(cfg)
    cfg.SOLVER.merge_from_list([item for pair in solver.items() for item in pair])
    cfg.SOLVER.BASE_LR = 0.1
    cfg.SOLVER.WEIGHT_DECAY = 0.05
    return cfg


class Network(nn.Module):
    """A network with a backbone, a norm and a frozen parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(2, 2)
        self.head = nn.Linear(2, 2)
        self.norm = nn.LayerNorm(2)
        self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)

    def groups(self, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Any]]:
        names = {parameter: name for name, parameter in self.named_parameters()}
        return {names[p]: group for group in optimizer.param_groups for p in group["params"]}


@pytest.mark.parametrize(("name", "kind"), [("ADAMW", torch.optim.AdamW), ("SGD", torch.optim.SGD)])
def test_rates_and_decay_of_every_parameter(name: str, kind: type) -> None:
    network = Network()
    cfg = config(OPTIMIZER=name, BACKBONE_MULTIPLIER=0.2, WEIGHT_DECAY_NORM=0.01)
    optimizer = build_optimizer(cfg, network)
    assert isinstance(optimizer, kind)
    groups = network.groups(optimizer)
    assert "frozen" not in groups and len(groups) == 6
    for parameter, group in groups.items():
        assert group["lr"] == pytest.approx(0.02 if parameter.startswith("backbone") else 0.1)
        assert group["weight_decay"] == (0.01 if parameter.startswith("norm") else 0.05)


@pytest.mark.parametrize("enabled", [True, False])
def test_full_model_clipping_uses_one_norm(enabled: bool) -> None:
    network = Network()
    cfg = config(OPTIMIZER="SGD", MOMENTUM=0.0, BACKBONE_MULTIPLIER=1.0, WEIGHT_DECAY_NORM=0.0)
    cfg.SOLVER.WEIGHT_DECAY = 0.0
    cfg.SOLVER.CLIP_GRADIENTS.merge_from_list(
        ["ENABLED", enabled, "CLIP_TYPE", "full_model", "CLIP_VALUE", 0.5]
    )
    optimizer = build_optimizer(cfg, network)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    gradients = [torch.randn_like(parameter) for parameter in trained]
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    before = [parameter.detach().clone() for parameter in trained]
    for parameter, gradient in zip(trained, gradients, strict=True):
        parameter.grad = gradient.clone()
    optimizer.step()
    scale = 0.1 * (0.5 / norm if enabled else 1.0)
    for parameter, old, gradient in zip(trained, before, gradients, strict=True):
        torch.testing.assert_close(parameter.detach(), old - scale * gradient, rtol=1e-4, atol=1e-6)
    optimizer.zero_grad()
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # must not divide by a norm of zero
    assert all(parameter.isfinite().all() for parameter in trained)


@pytest.mark.parametrize(
    ("clip_type", "expected"), [("value", [0.5, -0.5, 0.3]), ("norm", [0.48, -0.14, 0.3])]
)
def test_clipping_by_parameter(clip_type: str, expected: list[float]) -> None:
    network = Network()
    cfg = config(OPTIMIZER="SGD")
    cfg.SOLVER.CLIP_GRADIENTS.merge_from_list(["ENABLED", True, "CLIP_TYPE", clip_type, "CLIP_VALUE", 0.5])
    optimizer = build_optimizer(cfg, network)
    network.head.bias.grad = torch.tensor([4.8, -1.4])
    network.norm.bias.grad = torch.tensor([0.3, 0.0])
    optimizer.step()  # other parameters have no gradient, as in the published network
    clipped = [*network.head.bias.grad.tolist(), network.norm.bias.grad[0].item()]
    assert clipped == pytest.approx(expected, rel=1e-4)


class Layers(nn.Module):
    """Linear layers for Muon, and everything that is not for it."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(48, 64)
        self.small = nn.Linear(48, 2)
        self.query_embed = nn.Embedding(40, 48)
        self.class_embed = nn.Linear(48, 40)
        self.convolution = nn.Conv2d(32, 32, 3)
        self.backbone = nn.Linear(48, 48)


def test_muon_is_for_linear_layers() -> None:
    pytest.importorskip("timm")
    network = Layers()
    cfg = config(OPTIMIZER="MUON", BACKBONE_MULTIPLIER=0.2)
    cfg.SOLVER.MUON.ADAMW_FACTOR = 0.5
    optimizer = build_optimizer(cfg, network)
    names = {parameter: name for name, parameter in network.named_parameters()}
    groups = {names[p]: group for group in optimizer.param_groups for p in group["params"]}
    assert groups.keys() == set(names.values())
    assert [name for name, group in groups.items() if not group.get("use_fallback")] == ["hidden.weight"]
    for name, group in groups.items():
        rate = 0.1 if name == "hidden.weight" else 0.01 if name.startswith("backbone") else 0.05
        assert group["lr"] == pytest.approx(rate), name

    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter)
    network.class_embed.weight.grad *= torch.logspace(-3, 0, 48)
    optimizer.step()
    update = before["hidden.weight"] * (1 - 0.1 * 0.05) - network.hidden.weight.detach()
    # Nearly orthogonal (the iteration is not exact), times the learning rate and 0.2 sqrt(64).
    singular = torch.linalg.svdvals(update) / (0.1 * 0.2 * 64**0.5)
    assert singular.min() > 0.3 and singular.max() < 1.5
    moved = (before["class_embed.weight"] * (1 - 0.05 * 0.05) - network.class_embed.weight.detach()).abs()
    # AdamW moves as far for small gradients as for large ones.
    assert moved.max() < 2 * moved.min() and moved.max() < 0.15


def test_muon_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ImportError("No module named 'timm'")

    monkeypatch.setattr("seqformer.engine.optimizer.import_timm", missing)
    with pytest.raises(InputError, match="MUON needs timm"):
        build_optimizer(config(OPTIMIZER="MUON"), Network())


def test_unknown_optimizer_and_clipping() -> None:
    with pytest.raises(InputError, match="SOLVER.OPTIMIZER must be ADAMW, MUON or SGD, not 'LION'"):
        build_optimizer(config(OPTIMIZER="LION"), Network())
    cfg = config()
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "model"
    with pytest.raises(InputError, match="CLIP_TYPE must be one of full_model, norm, value, not 'model'"):
        build_optimizer(cfg, Network())
    with pytest.raises(InputError, match="every parameter is frozen"):
        build_optimizer(config(), Network().requires_grad_(False))
