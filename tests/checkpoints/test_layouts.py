from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from detectron2.modeling import build_model
from networks import equal_states, tiny_config, tiny_model
from originals import original_layout, released_file, torchvision_names

from seqformer import model_zoo
from seqformer.checkpoints import SeqFormerCheckpointer, convert_efficientnet_lite0, to_published
from seqformer.cli import convert_checkpoint
from seqformer.config import load_config
from seqformer.errors import InputError

BACKBONE = "detr.detr.backbone.0.backbone."
COCO_ROWS = [category["id"] for category in COCO_CATEGORIES if category["isthing"]]


def wrapped(path: Path, kind: str, state: dict[str, torch.Tensor]) -> Path:
    """Writes weights as other training scripts do."""
    if kind == "released":
        return released_file(path, state)
    if kind == "module":
        torch.save({"model": {"module." + name: tensor for name, tensor in state.items()}}, path)
    elif kind == "compiled":
        torch.save({"_orig_mod." + name: tensor for name, tensor in state.items()}, path)
    elif kind == "plain":
        torch.save(state, path)
    elif kind == "nested":
        torch.save({"model": {"state_dict": state}, "epoch": 3}, path)
    elif kind == "old PyTorch":
        torch.save({"model": state}, path, _use_new_zipfile_serialization=False)
    else:
        torch.save({kind: state, "iteration": 7}, path)
    return path


@pytest.mark.parametrize("layout", ["published", "original"])
@pytest.mark.parametrize(
    "kind",
    ["released", "module", "compiled", "plain", "nested", "old PyTorch", "state_dict", "model_state_dict"],
)
def test_every_layout_in_every_wrapper(
    tmp_path: Path, layout: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    model, other = tiny_model(NUM_CLASSES=7), tiny_model(NUM_CLASSES=7)
    state = model.state_dict()
    if layout == "original":
        state = original_layout(state, rows=list(range(1, 8)), num_rows=9)
    path = wrapped(tmp_path / "weights.pth", kind, dict(state))
    SeqFormerCheckpointer(other, strict=True).load(str(path))
    assert equal_states(model, other)
    line = next(record.getMessage() for record in caplog.records if "tensors loaded" in record.getMessage())
    total = len(model.state_dict())
    assert f"{total} of {total} tensors loaded" in line
    assert ("rows 1 to 7 of 9 as classes" if layout == "original" else "published Detectron2 layout") in line


def test_coco_weights_are_80_classes(tmp_path: Path) -> None:
    model, other = tiny_model(NUM_CLASSES=80), tiny_model(NUM_CLASSES=80)
    path = released_file(tmp_path / "coco.pth", original_layout(model.state_dict(), COCO_ROWS, 91))
    SeqFormerCheckpointer(other, strict=True).load(str(path))
    assert equal_states(model, other)


def test_coco_weights_for_other_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They start a training without their class heads, and are refused in inference."""
    caplog.set_level("INFO")
    coco, model, before = tiny_model(NUM_CLASSES=80), tiny_model(), tiny_model()
    before.load_state_dict(model.state_dict())
    path = released_file(tmp_path / "coco.pth", original_layout(coco.state_dict(), COCO_ROWS, 91))
    SeqFormerCheckpointer(model).load(str(path))
    for name, tensor in model.state_dict().items():
        expected = before if "class_embed" in name else coco
        assert torch.equal(tensor, expected.state_dict()[name]), name
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("seqformer")]
    total = len(model.state_dict())
    assert len(lines) == 1
    assert f"{total - 6} of {total} tensors loaded; not loaded: class_embed (6)" in lines[0]
    assert "pretrained on COCO" in lines[0]
    with pytest.raises(InputError, match=r"91x64 in the file and 7x64 in the model: .*COCO.*NUM_CLASSES 80"):
        SeqFormerCheckpointer(tiny_model(), strict=True).load(str(path))


@pytest.mark.parametrize("name", ["ytvis19/seqformer_X101", "ytvis19/seqformer_SwinT"])
def test_other_backbones_of_the_original_release(name: str) -> None:
    """Only names and shapes are compared; the large network is not even allocated."""
    swin = "Swin" in name
    with torch.device("cpu" if swin else "meta"):
        cfg = load_config(model_zoo.get_config_file(name), ["MODEL.DEVICE", "cpu" if swin else "meta"])
        state = build_model(cfg).state_dict()
    original = original_layout(state, rows=list(range(1, 41)), num_rows=42)
    assert ("detr.backbone.0.body.norm0.weight" in original) == swin
    assert ("detr.backbone.0.body.layer3.22.downsample.0.weight" in original) is False
    assert ("detr.backbone.0.body.layer3.22.bn2.running_mean" in original) != swin
    if swin:
        original["detr.backbone.0.body.layers.0.blocks.1.attn_mask"] = torch.zeros(2)
    renamed = to_published(original, 40).state
    assert {n: t.shape for n, t in renamed.items()} == {n: t.shape for n, t in state.items()}


@pytest.mark.parametrize("layout", ["torchvision", "Detectron2", "bottom_up"])
def test_backbones_trained_on_images(tmp_path: Path, layout: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    model, other = tiny_model(), tiny_model()
    state = {n.removeprefix(BACKBONE): t for n, t in model.state_dict().items() if n.startswith(BACKBONE)}
    count = len(state)
    if layout == "torchvision":
        state = torchvision_names(state) | {"fc.weight": torch.zeros(10, 8), "fc.bias": torch.zeros(10)}
    elif layout == "bottom_up":
        state = {"backbone.bottom_up." + n: t for n, t in state.items()} | {"roi_heads.x": torch.zeros(1)}
    torch.save(state, tmp_path / "backbone.pth")
    SeqFormerCheckpointer(other).load(str(tmp_path / "backbone.pth"))
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]) or not name.startswith(BACKBONE)
    assert (
        f"{count} of {len(model.state_dict())} tensors loaded; not loaded: transformer (177)" in caplog.text
    )
    with pytest.raises(InputError, match="the file lacks"):
        SeqFormerCheckpointer(other, strict=True).load(str(tmp_path / "backbone.pth"))


def test_original_release_is_converted(tmp_path: Path) -> None:
    model = tiny_model(NUM_CLASSES=7)
    source, output = tmp_path / "original.pth", tmp_path / "converted.pth"
    original = original_layout(model.state_dict(), rows=list(range(1, 8)), num_rows=9)
    assert "detr.backbone.0.body.layer1.0.downsample.1.running_mean" in original
    assert "controller.layers.0.weight" in original
    released_file(source, original)
    convert_checkpoint.main(["seqformer", str(source), str(output), "--num-classes", "7"])
    other = build_model(tiny_config())
    other.load_state_dict(torch.load(output)["model"])
    assert equal_states(model, other)


def test_conversion_names_unknown_tensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for state, message in (
        ({"roi_heads.weight": torch.zeros(2)}, "'roi_heads.weight' is not a tensor of SeqFormer"),
        ({"detr.class_embed.0.bias": torch.zeros(5)}, "has 5 rows, not 40 or 40 + 2"),
        ({"detr.class_embed.0.bias": torch.tensor(5.0)}, "has 0 rows, not 40 or 40 + 2"),
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
