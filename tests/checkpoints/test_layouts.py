from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from networks import equal_states, tiny_config, tiny_model

from seqformer.checkpoints import SeqFormerCheckpointer, convert_efficientnet_lite0
from seqformer.cli import convert_checkpoint
from seqformer.errors import InputError


def original_layout(state: dict[str, torch.Tensor], num_classes: int) -> dict[str, torch.Tensor]:
    """Returns weights as in the original release: torchvision's ResNet names, 2 more rows in class heads."""
    stages = {f"res{stage + 1}.": f"layer{stage}." for stage in range(1, 5)}
    original = {}
    for name, tensor in state.items():
        name = name.removeprefix("detr.")
        if name.startswith("detr.backbone.0.backbone."):
            rest = name.removeprefix("detr.backbone.0.backbone.")
            rest = rest.replace("stem.conv1.norm.", "bn1.").replace("stem.conv1.", "conv1.")
            rest = rest.replace("shortcut.norm.", "downsample.1.").replace("shortcut.", "downsample.0.")
            for k in "123":
                rest = rest.replace(f".conv{k}.norm.", f".bn{k}.")
            for ours, theirs in stages.items():
                rest = rest.replace(ours, theirs)
            name = "detr.backbone.0.body." + rest
            if name.endswith("running_var"):
                original[name.replace("running_var", "num_batches_tracked")] = torch.tensor(1)
        if "class_embed" in name:
            padding = torch.full((1, *tensor.shape[1:]), 9.0)
            tensor = torch.cat((padding, tensor, padding))
        original[name] = tensor
    return original


def test_original_release_is_converted(tmp_path: Path) -> None:
    model = tiny_model(NUM_CLASSES=7)
    source, output = tmp_path / "original.pth", tmp_path / "converted.pth"
    original = original_layout(model.state_dict(), 7)
    assert "detr.backbone.0.body.layer1.0.downsample.1.running_mean" in original
    assert "controller.layers.0.weight" in original
    torch.save({"model": original, "epoch": 12}, source)
    convert_checkpoint.main(["seqformer", str(source), str(output), "--num-classes", "7"])
    other = build_model(tiny_config())
    SeqFormerCheckpointer(other, strict=True).load(str(output))
    assert equal_states(model, other)


def test_conversion_names_unknown_tensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for state, message in (
        ({"roi_heads.weight": torch.zeros(2)}, "'roi_heads.weight' is not a tensor of SeqFormer"),
        ({"detr.class_embed.0.bias": torch.zeros(5)}, "has 5 rows, not 40 or 40 + 2"),
    ):
        torch.save({"model": state}, tmp_path / "x.pth")
        with pytest.raises(SystemExit) as exit_:
            convert_checkpoint.main(["seqformer", str(tmp_path / "x.pth"), str(tmp_path / "y.pth")])
        assert exit_.value.code == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "y.pth").exists()


def test_efficientnet_lite0_is_renamed(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    state = timm.create_model("tf_efficientnet_lite0").state_dict()
    foreign = {f"tensor{i}": t for i, (n, t) in enumerate(state.items()) if "num_batches" not in n}
    assert len(foreign) == 247
    renamed = convert_efficientnet_lite0(foreign)
    assert sum(torch.equal(state[name], tensor) for name, tensor in renamed.items()) == 247
    with pytest.raises(InputError, match="not the weights of EfficientNet-Lite0"):
        convert_efficientnet_lite0(dict(list(foreign.items())[::-1]))
