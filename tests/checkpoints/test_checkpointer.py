from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import equal_states, tiny_model
from safetensors.torch import save_file

from seqformer.checkpoints import (
    SeqFormerCheckpointer,
    read_checkpoint,
    read_metadata,
    read_state,
    trust_checkpoints,
    write_state,
)
from seqformer.errors import DivergedError, InputError


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
    elif kind == "object array":
        torch.save({"model": {"a": np.array(["text", None], dtype=object)}}, path)
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
        ("object array", "have no state dict"),
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


class Code:
    """An object whose unpickling makes a folder."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
@pytest.mark.parametrize("place", ["model", "args"])
def test_code_in_weights_is_not_executed_unless_trusted(tmp_path: Path, suffix: str, place: str) -> None:
    mark, path, model = tmp_path / "executed", tmp_path / f"weights{suffix}", tiny_model()
    other = tiny_model()
    checkpoint = {"model": dict(model.state_dict()), "__author__": "somebody"}
    checkpoint[place] = {**checkpoint["model"], "code": Code(mark)} if place == "model" else Code(mark)
    if suffix == ".pth":
        torch.save(checkpoint, path)
    else:
        checkpoint["model"] = {
            name: value.numpy() if isinstance(value, torch.Tensor) else value
            for name, value in checkpoint["model"].items()
        }
        path.write_bytes(pickle.dumps(checkpoint))
    with pytest.raises(InputError, match=r"contain posix\.mkdir, which executes code.*--trust-checkpoint"):
        SeqFormerCheckpointer(other).load(str(path))
    assert not mark.exists()
    if place == "args":
        with trust_checkpoints():
            SeqFormerCheckpointer(other, strict=True).load(str(path))
        assert mark.exists() and equal_states(model, other)


@pytest.mark.parametrize("module", [b"numpy._core.multiarray", b"numpy.core.multiarray"])
def test_pickles_of_arrays_need_no_trust(tmp_path: Path, module: bytes) -> None:
    """As in Detectron2's model zoo; NumPy 1 and 2 name their modules differently."""
    model, other = tiny_model(), tiny_model()
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    written = {"model": state, "__author__": "somebody", "score": np.float32(0.5)}
    data = pickle.dumps(written, protocol=2)
    assert b"numpy._core.multiarray" in data
    (tmp_path / "weights.pkl").write_bytes(data.replace(b"numpy._core.multiarray", module))
    SeqFormerCheckpointer(other, strict=True).load(str(tmp_path / "weights.pkl"))
    assert equal_states(model, other)
    assert read_checkpoint(tmp_path / "weights.pkl")["score"] == np.float32(0.5)


def test_a_small_pickle_takes_little_memory(tmp_path: Path) -> None:
    """The shape with which an array is created is not trusted: 4 TB here."""
    data = pickle.dumps({"model": {"a": np.zeros(3)}}, protocol=2).replace(
        b"K\x00\x85", b"\x8a\x06" + b"\0" * 5 + b"\x04\x85"
    )
    (tmp_path / "large.pkl").write_bytes(data)
    np.testing.assert_array_equal(read_checkpoint(tmp_path / "large.pkl")["model"]["a"], np.zeros(3))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1).expand(10**12),
        torch.zeros(3, device="meta"),
        torch.zeros(3).to_sparse(),
    ],
    ids=["repeated", "meta", "sparse"],
)
def test_tensors_whose_values_are_not_in_the_file_are_refused(tmp_path: Path, tensor: torch.Tensor) -> None:
    torch.save({"model": {"a": torch.zeros(2), "b": tensor}}, tmp_path / "small.pth")
    assert (tmp_path / "small.pth").stat().st_size < 10_000
    with pytest.raises(InputError, match="small.pth'"):
        read_state(tmp_path / "small.pth")


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_damaged_weights_take_little_memory(tmp_path: Path, suffix: str) -> None:
    """Every byte of a small file is changed, in a process that gets 500 MB."""
    path = tmp_path / f"a{suffix}"
    if suffix == ".pth":
        torch.save({"model": {"a": torch.zeros(3)}}, path, _use_new_zipfile_serialization=False)
    else:
        path.write_bytes(pickle.dumps({"model": {"a": np.zeros(3)}}))
    done = subprocess.run([sys.executable, "-c", CHANGED, str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{path.stat().st_size} files\n"), done.stderr[-2000:]


CHANGED = """
import re, resource, sys
from pathlib import Path
from seqformer.checkpoints.files import read_state
from seqformer.errors import InputError

path = Path(sys.argv[1])
data = path.read_bytes()
used = int(re.findall(r"VmSize:\\s*(\\d+)", Path("/proc/self/status").read_text())[0]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + 500_000_000, resource.RLIM_INFINITY))
count = 0
for place in range(len(data)):
    changed = path.with_name("changed" + path.suffix)
    changed.write_bytes(data[:place] + bytes([data[place] ^ 0x7F]) + data[place + 1:])
    try:
        read_state(changed)
    except InputError:
        pass
    count += 1
print(count, "files")
"""


def test_weights_of_which_nothing_fits_are_refused(tmp_path: Path) -> None:
    torch.save({"model": {"backbone.weight": torch.zeros(2)}}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"no tensor of weights .* \(unknown layout\) fits the model"):
        SeqFormerCheckpointer(tiny_model()).load(str(tmp_path / "other.pth"))


def test_training_resumes_only_from_its_folder(tmp_path: Path) -> None:
    model = tiny_model()
    for folder in ("other", "own"):
        (tmp_path / folder).mkdir()
    SeqFormerCheckpointer(model, str(tmp_path / "other")).save("model_0000001")
    checkpointer = SeqFormerCheckpointer(model, str(tmp_path / "own"))
    checkpointer.save("model_0000001")
    (tmp_path / "own" / "last_checkpoint").write_text("../other/model_0000001.pth")
    with pytest.raises(InputError, match="must be the name of a file in its folder"):
        checkpointer.resume_or_load("", resume=True)


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


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("unexpected pos 9335552")]
)
def test_a_full_disk_keeps_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    checkpointer = SeqFormerCheckpointer(tiny_model(), str(tmp_path))
    checkpointer.save("model_0000001")

    def full(data: object, file: object) -> None:
        file.write(b"half of a checkpoint")
        raise error

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match=r"model_0000002\.pth' cannot be written: (No space|is the disk)"):
        checkpointer.save("model_0000002")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last_checkpoint", "model_0000001.pth"]
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    model = tiny_model()
    model.network.detr.query_embed.weight.data[0, 0] = float("inf")
    with pytest.raises(DivergedError, match=r"query_embed.weight is not finite"):
        SeqFormerCheckpointer(model, str(tmp_path)).save("model_0000001")
    assert not list(tmp_path.iterdir())


def test_training_does_not_resume_from_other_weights(tmp_path: Path) -> None:
    model = tiny_model()
    SeqFormerCheckpointer(model, str(tmp_path)).save("model_0000001")
    SeqFormerCheckpointer(model, str(tmp_path), resumable=False).save("model_best")
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"
    assert (tmp_path / "model_best.pth").is_file()


def test_queries_of_training_alone_are_not_missed_in_inference(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    state = tiny_model().state_dict()
    write_state(tmp_path / "model.pth", state)
    SeqFormerCheckpointer(tiny_model(QUERY_GROUPS=2), strict=True).load(str(tmp_path / "model.pth"))
    assert caplog.messages[-1].endswith(f"{len(state)} of {len(state)} tensors loaded")
    SeqFormerCheckpointer(tiny_model(QUERY_GROUPS=2)).load(str(tmp_path / "model.pth"))
    assert caplog.messages[-1].endswith("tensors loaded; not loaded: training_query_embed (1)")


@pytest.mark.parametrize("blobs", [[1, 2], {}, {1: np.zeros(2)}, {"a": "text"}, 3])
def test_a_damaged_file_of_caffe2_is_refused_in_one_line(tmp_path: Path, blobs: object) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps({"blobs": blobs}))
    with pytest.raises(InputError, match="have no state dict"):
        SeqFormerCheckpointer(tiny_model()).load(str(tmp_path / "model.pkl"))
