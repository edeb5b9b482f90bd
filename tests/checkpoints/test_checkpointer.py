from __future__ import annotations

from pathlib import Path

import pytest
import torch
from networks import equal_states, tiny_model
from safetensors.torch import save_file

from seqformer.checkpoints import SeqFormerCheckpointer, read_metadata, write_state
from seqformer.errors import InputError


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_both_formats_are_read(tmp_path: Path, suffix: str) -> None:
    model, other = tiny_model(), tiny_model()
    assert not equal_states(model, other)
    path = tmp_path / f"model{suffix}"
    write_state(path, {n: t.clone() for n, t in model.state_dict().items()})
    SeqFormerCheckpointer(other, strict=True).load(str(path))
    assert equal_states(model, other)


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
        ("missing tensor", "lacks 1 tensors, including detr.controller.layers.0.weight"),
        ("no state", "have no state dict"),
        ("truncated", "cannot be read"),
        ("broken pth", "cannot be read"),
        ("broken safetensors", "cannot be read"),
    ],
)
def test_weights_that_do_not_match_are_refused_in_one_line(tmp_path: Path, kind: str, message: str) -> None:
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


def test_a_checkpoint_is_complete_or_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_training_does_not_resume_from_other_weights(tmp_path: Path) -> None:
    model = tiny_model()
    SeqFormerCheckpointer(model, str(tmp_path)).save("model_0000001")
    SeqFormerCheckpointer(model, str(tmp_path), resumable=False).save("model_best")
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"
    assert (tmp_path / "model_best.pth").is_file()
