"""Agreement with the published architecture, against the reference figures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Instances
from networks import resnet_config, tiny_model

from seqformer import SeqFormer
from seqformer.config import load_config

TOLERANCE = 1e-5  # of the largest reference value


class Reference:
    """The reference figures in tiny_r50.npz."""

    def __init__(self, path: Path, device: torch.device):
        self.file = np.load(path)
        self.device = device
        self.frames = torch.from_numpy(self.file["input/frames"])

    def __getitem__(self, key: str) -> np.ndarray:
        return self.file[key]

    def model(self, **seqformer: object) -> SeqFormer:
        model = tiny_model(**seqformer)
        prefix = "weight/"
        names = [name for name in self.file.files if name.startswith(prefix)]
        model.load_state_dict({n.removeprefix(prefix): torch.from_numpy(self.file[n]) for n in names})
        return model.to(self.device)

    def training_video(self, name: str, frames: torch.Tensor) -> dict:
        masks = torch.from_numpy(self.file[f"train/{name}/masks"])
        instances = []
        for t, ids in enumerate(torch.from_numpy(self.file[f"train/{name}/ids"])):
            frame = Instances(tuple(frames.shape[-2:]))
            frame.gt_masks = BitMasks(masks[t])
            frame.gt_boxes = frame.gt_masks.get_bounding_boxes()
            frame.gt_classes = torch.from_numpy(self.file[f"train/{name}/classes"])
            frame.gt_ids = ids
            instances.append(frame)
        return {"image": list(frames), "instances": instances}


@pytest.fixture(scope="module")
def reference(reference_dir: Path, device: torch.device) -> Reference:
    return Reference(reference_dir / "tiny_r50.npz", device)


def assert_agrees(actual: torch.Tensor, expected: np.ndarray, tolerance: float) -> None:
    actual = actual.detach().cpu().double().numpy()
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


def test_encoder_and_every_decoder_layer(reference: Reference, slack: float) -> None:
    tolerance = TOLERANCE * slack
    model = reference.model()
    with torch.no_grad():
        frames = model.encode(list(reference.frames))
        outputs = model.network.decode(frames, len(frames))
    assert_agrees(frames.memory.sum(1)[None], reference["expected/encoder_memory_sum"], tolerance)
    assert_agrees(frames.memory[None, :, :16], reference["expected/encoder_memory_first_tokens"], tolerance)
    for key, tensors in {
        "decoder_instance_queries": [output.instance_queries[:, :32] for output in outputs],
        "decoder_box_queries": [output.box_queries[:, :, :32] for output in outputs],
        "decoder_reference_boxes": [output.boxes[:, :, :32] for output in outputs],
        "temporal_weights": [output.temporal_weights for output in outputs],
    }.items():
        assert_agrees(torch.stack(tensors), reference[f"expected/{key}"], tolerance)
    assert_agrees(model.network.classify(-1, outputs[-1]), reference["expected/pred_logits"], tolerance)
    assert_agrees(outputs[-1].boxes, reference["expected/pred_boxes"], tolerance)
    masks = model.network.masks(frames, outputs[-1].instance_queries[0, :8], outputs[-1].reference[0, :, :8])
    assert_agrees(masks[None], reference["expected/pred_masks_first"], tolerance)


@pytest.mark.parametrize("case", ["whole", "clip_3_1", "clip_2_2"])
def test_video_results(reference: Reference, slack: float, case: str) -> None:
    options = {}
    if case != "whole":
        length, stride = map(int, case.removeprefix("clip_").split("_"))
        options = {"CLIP_MATCHING": True, "CLIP_LENGTH": length, "CLIP_STRIDE": stride}
    model = reference.model(**options)
    result = model([{"image": list(reference.frames), "height": 137, "width": 195}])
    expected = f"video/{case}"
    np.testing.assert_allclose(
        result["pred_scores"], reference[f"{expected}/scores"], rtol=0, atol=1e-5 * slack
    )
    assert result["pred_labels"] == reference[f"{expected}/labels"].tolist()
    shape = reference[f"{expected}/mask_shape"]
    masks = np.unpackbits(reference[f"{expected}/masks"], count=shape.prod()).reshape(shape).astype(bool)
    assert result["image_size"] == (137, 195)
    assert (torch.stack(result["pred_masks"]).numpy() != masks).mean() <= 1e-5 * slack


def test_losses_and_gradients(reference: Reference, slack: float) -> None:
    model = reference.model(DROPOUT=0.0).train()
    losses = model(
        [
            reference.training_video("a", reference.frames),
            reference.training_video("b", torch.from_numpy(reference["train/b/frames"])),
        ]
    )
    names = reference["train/loss_names"].tolist()
    assert sorted(losses) == sorted(names)
    values = torch.stack([losses[name] for name in names])
    np.testing.assert_allclose(values.detach().cpu(), reference["train/loss_values"], rtol=1e-5 * slack)

    values.sum().backward()
    norms = {n: p.grad.norm().item() for n, p in model.named_parameters() if p.grad is not None}
    names = reference["train/grad_names"].tolist()
    assert sorted(norms) == sorted(names)
    # Some gradients are zero except for rounding, such as that of a bias added to every logit of a softmax.
    actual = [norms[name] for name in names]
    np.testing.assert_allclose(actual, reference["train/grad_norms"], rtol=1e-3 * slack, atol=1e-6 * slack)


@pytest.mark.parametrize("backbone", ["R50", "SwinL"])
def test_names_and_shapes_of_released_checkpoints(
    reference_dir: Path, repository: Path, backbone: str
) -> None:
    model = build_model(load_config(repository / f"configs/ytvis19/seqformer_{backbone}.yaml"))
    keys = {"R50": "keys_r50.json", "SwinL": "keys_swin_l.json"}[backbone]
    expected = json.loads((reference_dir / keys).read_text())
    assert {k: list(v.shape) for k, v in model.state_dict().items()} == expected


def test_detectron2_checkpointer_loads_every_tensor_of_a_released_checkpoint(
    reference_dir: Path, tmp_path: Path
) -> None:
    expected = json.loads((reference_dir / "keys_r50.json").read_text())
    path = tmp_path / "released.pth"
    torch.save({"model": {name: torch.ones(shape) for name, shape in expected.items()}}, path)
    model = build_model(resnet_config(NUM_CLASSES=40))
    checkpointer = DetectionCheckpointer(model)
    incompatible = []
    checkpointer._log_incompatible_keys = incompatible.append
    checkpointer.load(str(path))
    assert [(i.missing_keys, i.unexpected_keys, i.incorrect_shapes) for i in incompatible] == [([], [], [])]
    assert all((parameter == 1).all() for parameter in model.parameters())
