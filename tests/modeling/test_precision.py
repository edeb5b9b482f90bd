"""Reduced precision: outputs near those of fp32, and an error where it cannot be used."""

from __future__ import annotations

import copy

import pytest
import torch
from networks import tiny_model, two_moving_squares
from torch import Tensor

from seqformer.errors import InputError
from seqformer.modeling import SeqFormerNetwork, reduce_precision

# Largest differences of random weights: logits of masks as a share of their range, and class probabilities.
TOLERANCES = {"bf16": (0.05, 0.02), "int8": (0.05, 0.02)}


@pytest.fixture
def any_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets processors without bf16 compute in it, slowly."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)


def random_network() -> SeqFormerNetwork:
    torch.manual_seed(0)
    network = tiny_model().network
    for head in network.detr.bbox_embed:
        torch.nn.init.normal_(head.layers[-1].weight, std=0.05)  # zero before training
    return network


def outputs(network: SeqFormerNetwork) -> tuple[Tensor, Tensor, Tensor]:
    """Returns mask logits of ten queries, class probabilities and boxes."""
    with torch.no_grad():
        frames = network.encode(two_moving_squares()["image"])
        output = network.decode(frames, len(frames))[-1]
        masks = network.masks(frames, output.instance_queries[0, :10], output.reference[0, :, :10])
        return masks, network.classify(-1, output).sigmoid(), output.boxes


@pytest.mark.usefixtures("any_processor")
@pytest.mark.parametrize("precision", TOLERANCES)
def test_outputs_are_near_those_of_fp32(precision: str) -> None:
    network = random_network()
    exact = outputs(network)
    reduce_precision(network, precision)
    masks, classes, boxes = outputs(network)
    assert {x.dtype for x in (masks, classes, boxes)} == {torch.float32}
    mask_tolerance, tolerance = TOLERANCES[precision]
    assert 0 < (masks - exact[0]).abs().max() < mask_tolerance * (exact[0].max() - exact[0].min())
    assert 0 < (classes - exact[1]).abs().max() < tolerance
    assert 0 < (boxes - exact[2]).abs().max() < tolerance


@pytest.mark.usefixtures("any_processor")
@pytest.mark.parametrize("precision", TOLERANCES)
@torch.no_grad()
def test_shared_values_are_those_of_the_decoder(precision: str) -> None:
    """Also with the float32 memory that autocast leaves on GPUs, where layer norms stay in float32."""
    network = random_network()
    reduce_precision(network, precision)
    frames = network.encode(two_moving_squares()["image"])
    for memory in (frames.memory, frames.memory.float()):
        frames.memory = memory
        shared, own = (network.decode(x, 3)[-1] for x in (network.with_values(frames), frames))
        assert torch.equal(shared.instance_queries, own.instance_queries)
        assert torch.equal(shared.boxes, own.boxes)


def test_fp32_changes_nothing() -> None:
    network = random_network()
    exact = outputs(network)
    state = copy.deepcopy(network.state_dict())
    reduce_precision(network, "fp32")
    for before, after in zip(exact, outputs(network), strict=True):
        assert torch.equal(before, after)
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_heads_stay_in_float32(any_processor: None) -> None:
    network = tiny_model().network
    reduce_precision(network, "bf16")
    kept = {name for name, value in network.state_dict().items() if value.dtype == torch.float32}
    for head in ("detr.class_embed.0", "controller.layers.0", "detr.transformer.reference_points"):
        assert f"{head}.weight" in kept
    assert network.detr.transformer.encoder.layers[0].linear1.weight.dtype == torch.bfloat16


@pytest.mark.parametrize(("precision", "reason"), [("bf16", "AVX512_BF16 or AMX"), ("fp16", "needs a GPU")])
def test_refused_where_it_is_slow(precision: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    network = tiny_model().network
    with pytest.raises(InputError, match=reason):
        reduce_precision(network, precision)
    assert {value.dtype for value in network.state_dict().values()} <= {torch.float32, torch.int64}


def test_int8_is_refused_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SeqFormerNetwork, "device", torch.device("cuda"))
    with pytest.raises(InputError, match="int8 is for processors, not for device 'cuda'"):
        reduce_precision(tiny_model().network, "int8")


def test_unknown_precision() -> None:
    with pytest.raises(InputError, match="MODEL.SeqFormer.PRECISION must be one of fp32, bf16, fp16, int8"):
        tiny_model(PRECISION="fp8")


@pytest.mark.usefixtures("any_processor")
def test_training_ignores_it() -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        model = tiny_model(PRECISION=precision).train()
        torch.manual_seed(1)
        losses.append(model([two_moving_squares()]))
    assert losses[0].keys() == losses[1].keys()
    assert all(torch.equal(losses[0][name], losses[1][name]) for name in losses[0])
