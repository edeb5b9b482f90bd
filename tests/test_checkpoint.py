from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from networks import tiny_config, tiny_model
from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import AveragedModel

import convert_checkpoint
import export_weights
from seqformer.checkpoint import SeqFormerCheckpointer, read_metadata
from seqformer.errors import InputError


def equal_states(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_both_formats_are_read(tmp_path: Path, suffix: str) -> None:
    model, other = tiny_model(), tiny_model()
    assert not equal_states(model, other)
    path = tmp_path / f"model{suffix}"
    convert_checkpoint.write_state(path, {n: t.clone() for n, t in model.state_dict().items()})
    SeqFormerCheckpointer(other, strict=True).load(str(path))
    assert equal_states(model, other)


def test_half_precision_export(tmp_path: Path) -> None:
    model, other = tiny_model(NUM_CLASSES=2), tiny_model(NUM_CLASSES=2)
    source, output = tmp_path / "model.pth", tmp_path / "model.safetensors"
    torch.save({"model": model.state_dict(), "iteration": 3}, source)
    export_weights.main([str(source), str(output), "--classes", "person", "dog"])
    assert output.stat().st_size < 0.6 * source.stat().st_size
    assert json.loads(read_metadata(output)["thing_classes"]) == ["person", "dog"]
    SeqFormerCheckpointer(other, strict=True).load(str(output))
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)
    assert other.network.detr.query_embed.weight.dtype == torch.float32


def test_export_of_averaged_weights_without_the_queries_of_training(tmp_path: Path) -> None:
    model, average = tiny_model(NUM_CLASSES=2, QUERY_GROUPS=2), tiny_model(NUM_CLASSES=2, QUERY_GROUPS=2)
    source, output = tmp_path / "model.pth", tmp_path / "model.safetensors"
    trainer = {"average": AveragedModel(average).state_dict()}
    torch.save({"model": model.state_dict(), "trainer": trainer}, source)
    export_weights.main([str(source), str(output), "--classes", "person", "dog", "--average"])
    written = load_file(output)
    assert written.keys() == tiny_model(NUM_CLASSES=2).state_dict().keys()
    for name, tensor in average.state_dict().items():
        if name in written:
            torch.testing.assert_close(written[name].float(), tensor.float(), rtol=1e-3, atol=1e-6)


def test_export_refuses_to_invent_an_average(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, output = tmp_path / "model.pth", tmp_path / "o.safetensors"
    torch.save({"model": tiny_model(NUM_CLASSES=1).state_dict()}, source)
    with pytest.raises(SystemExit) as exit_:
        export_weights.main([str(source), str(output), "--classes", "person", "--average"])
    assert exit_.value.code == 2
    assert "has no moving average" in capsys.readouterr().err
    assert not output.exists()


def test_export_refuses_another_number_of_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": tiny_model(NUM_CLASSES=2).state_dict()}, tmp_path / "model.pth")
    with pytest.raises(SystemExit) as exit_:
        export_weights.main([str(tmp_path / "model.pth"), str(tmp_path / "o.safetensors"), "--classes", "x"])
    assert exit_.value.code == 2
    assert "2 classes, --classes names 1" in capsys.readouterr().err
    assert not list(tmp_path.glob("o.*"))


def broken_file(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / ("model.pth" if kind != "broken safetensors" else "model.safetensors")
    if kind == "other classes":
        torch.save({"model": tiny_model(NUM_CLASSES=3).state_dict()}, path)
    elif kind == "other architecture":
        torch.save({"model": {"backbone.weight": torch.zeros(2)}}, path)
    elif kind == "missing tensor":
        state = tiny_model().state_dict()
        state.pop("detr.controller.layers.0.weight")
        torch.save({"model": state}, path)
    elif kind == "no state":
        torch.save({"model": 3}, path)
    elif kind == "truncated":
        torch.save({"model": tiny_model().state_dict()}, path)
        path.write_bytes(path.read_bytes()[:5000])
    elif kind != "missing file":
        path.write_bytes(b"nothing of the kind")
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing file", "not found"),
        ("other classes", "class_embed.0.weight is 3x64 in the file and 7x64 in the model"),
        ("other architecture", "lacks"),
        ("missing tensor", "lacks 1 tensors, detr.controller.layers.0.weight among them"),
        ("no state", "hold no state dict"),
        ("truncated", "cannot be read"),
        ("broken pth", "cannot be read"),
        ("broken safetensors", "cannot be read"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path: Path, kind: str, message: str) -> None:
    path = broken_file(tmp_path, kind)
    with pytest.raises(InputError, match=message) as error:
        SeqFormerCheckpointer(tiny_model(), strict=True).load(str(path))
    assert "\n" not in str(error.value)


def test_metadata_of_other_files(tmp_path: Path) -> None:
    assert read_metadata("model.pth") == {}
    path = tmp_path / "plain.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    assert read_metadata(path) == {}
    with pytest.raises(InputError, match="cannot be read"):
        read_metadata(tmp_path / "none.safetensors")


def original_layout(state: dict[str, torch.Tensor], num_classes: int) -> dict[str, torch.Tensor]:
    """The original release's names of a model: torchvision's ResNet, a class head with two more rows."""
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


def test_conversion_names_what_it_does_not_know(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for state, message in (
        ({"roi_heads.weight": torch.zeros(2)}, "'roi_heads.weight' is no tensor of SeqFormer"),
        ({"detr.class_embed.0.bias": torch.zeros(5)}, "has 5 rows, neither 40 nor 40 + 2"),
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
    renamed = convert_checkpoint.convert_efficientnet_lite0(foreign)
    assert sum(torch.equal(state[name], tensor) for name, tensor in renamed.items()) == 247
    with pytest.raises(InputError, match="not the weights of EfficientNet-Lite0"):
        convert_checkpoint.convert_efficientnet_lite0(dict(list(foreign.items())[::-1]))


def test_a_checkpoint_is_complete_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, other = tiny_model(), tiny_model()
    checkpointer = SeqFormerCheckpointer(model, str(tmp_path))
    checkpointer.save("model_0000001", iteration=1)

    def killed(data: object, file: object) -> None:
        file.write(b"half of a checkpoint")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(torch, "save", killed)
        checkpointer.save("model_0000002", iteration=2)
    assert sorted(path.name for path in tmp_path.glob("model*.pth")) == [
        "model_0000001.pth",
        "model_0000002.partial.pth",
    ]
    rest = SeqFormerCheckpointer(other, str(tmp_path)).resume_or_load("", resume=True)
    assert rest["iteration"] == 1 and equal_states(model, other)
    checkpointer.save("model_0000002", iteration=2)
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000002.pth"
    assert not list(tmp_path.glob("*.partial*"))


def test_weights_that_training_does_not_resume_from(tmp_path: Path) -> None:
    model = tiny_model()
    SeqFormerCheckpointer(model, str(tmp_path)).save("model_0000001")
    SeqFormerCheckpointer(model, str(tmp_path), resumable=False).save("model_best")
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"
    assert (tmp_path / "model_best.pth").is_file()
