"""Agreement with the original release, against the figures in tests/reference.

Weights are made in the release's layout and given as they are, as a user would.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from networks import resnet_config
from originals import released_file
from reference.weights import make_weights

from seqformer import SeqFormer
from seqformer.checkpoints import SeqFormerCheckpointer

HEIGHT, WIDTH = 96, 160


@pytest.fixture(scope="module")
def weights(repository: Path) -> dict[str, torch.Tensor]:
    layout = json.loads((repository / "tests/reference/original_r50.json").read_text())
    return make_weights(layout["shapes"])


@pytest.fixture(scope="module")
def expected(repository: Path) -> Mapping[str, np.ndarray]:
    return np.load(repository / "tests/reference/original_r50.npz")


@pytest.fixture(scope="module")
def model(
    weights: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory, device: torch.device
) -> SeqFormer:
    path = released_file(tmp_path_factory.mktemp("original") / "original.pth", weights)
    model = build_model(
        resnet_config(
            HIDDEN_DIM=64,
            NHEADS=4,
            ENC_LAYERS=2,
            DEC_LAYERS=3,
            DIM_FEEDFORWARD=96,
            NUM_CLASSES=40,
            RESULT_PROTOCOL="original",
        )
    )
    SeqFormerCheckpointer(model, strict=True).load(str(path))
    return model.eval().to(device)


def test_recipe_reproduces_the_weights_of_the_figures(weights: dict[str, torch.Tensor]) -> None:
    """If only this fails, PyTorch's random numbers changed, not the network."""
    row = weights["detr.class_embed.0.weight"][0, :3]
    np.testing.assert_allclose(row, [-0.2438116, -0.1245143, 0.0320745], atol=1e-6)
    total = sum(tensor.double().abs().mean().item() for tensor in weights.values())
    assert total == pytest.approx(172.2822, abs=1e-3)


def test_logits_and_boxes(model: SeqFormer, expected: Mapping[str, np.ndarray], slack: float) -> None:
    with torch.no_grad():
        frames = model.encode(list(torch.from_numpy(expected["frames"])))
        output = model.network.decode(frames, len(frames))[-1]
        logits = model.network.classify(-1, output)
    # Row k of the original's class head is category k, which is class k - 1 here; rows 0 and 41 are unused.
    logits, boxes = logits[0].cpu(), output.boxes[0].cpu()
    np.testing.assert_allclose(logits, expected["pred_logits"][:, 1:41], rtol=0, atol=3e-5 * slack)
    np.testing.assert_allclose(boxes, expected["pred_boxes"], rtol=0, atol=5e-6 * slack)


def test_results(model: SeqFormer, expected: Mapping[str, np.ndarray], slack: float) -> None:
    frames = list(torch.from_numpy(expected["frames"]))
    result = model([{"image": frames, "height": HEIGHT, "width": WIDTH}])
    np.testing.assert_allclose(result["pred_scores"], expected["scores"], rtol=0, atol=5e-6 * slack)
    assert [label + 1 for label in result["pred_labels"]] == expected["category_ids"].tolist()
    shape = expected["mask_shape"]
    masks = np.unpackbits(expected["masks"], count=shape.prod()).reshape(shape).astype(bool)
    actual = torch.stack(result["pred_masks"]).numpy()
    assert actual.shape == masks.shape
    assert (actual != masks).mean() <= 1e-5 * slack
