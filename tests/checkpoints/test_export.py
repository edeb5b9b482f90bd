from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from networks import tiny_model
from originals import original_layout, released_file
from safetensors.torch import load_file
from torch.optim.swa_utils import AveragedModel

from seqformer.checkpoints import SeqFormerCheckpointer, read_metadata
from seqformer.cli import export_weights


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


def test_export_of_averaged_weights_without_training_queries(tmp_path: Path) -> None:
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


def test_export_without_an_average_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    assert "2 classes, but there are 1 class names" in capsys.readouterr().err
    assert not list(tmp_path.glob("o.*"))


def test_export_from_the_original_release(tmp_path: Path) -> None:
    model = tiny_model(NUM_CLASSES=2)
    source, output = tmp_path / "checkpoint.pth", tmp_path / "model.safetensors"
    released_file(source, original_layout(model.state_dict(), rows=[1, 2], num_rows=4))
    export_weights.main([str(source), str(output), "--classes", "person", "dog"])
    written, expected = load_file(output), model.state_dict()
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[name], tensor.half()) for name, tensor in expected.items())
