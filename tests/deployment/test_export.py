"""Exported models compute what the network computes, at other lengths and sizes than those traced."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import tiny_config, tiny_model
from torch import Tensor

import seqformer
from seqformer import SeqFormer
from seqformer.cli import export
from seqformer.deployment import ClipDecoder, FrameEncoder, export_model
from seqformer.errors import InputError
from seqformer.ops import is_compiled

CANDIDATES = 5
# Frames, padded height and width, unpadded height and width. 160 x 224 is traced, with 3 frames.
CLIPS = [(1, 96, 128, 96, 128), (2, 128, 96, 101, 96), (5, 160, 192, 129, 185)]
NAMES = ["probabilities", "boxes", "candidates", "mask_logits"]
ENCODED = ["memory0", "memory1", "memory2", "memory3", "mask_features"]


@pytest.fixture(scope="module")
def model() -> SeqFormer:
    model = tiny_model(NUM_OBJECT_QUERIES=20)
    with torch.no_grad():  # otherwise all sampling offsets are the same
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return model


def clip_inputs(clip: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    frames = torch.randint(0, 256, (clip[0], 3, *clip[1:3]), dtype=torch.uint8)
    return frames, torch.tensor(clip[3:])


@torch.no_grad()
def expected(model: SeqFormer, frames: Tensor, size: Tensor) -> dict[str, Tensor]:
    """What the network itself computes from unpadded frames."""
    height, width = size.tolist()
    network = model.network
    encoded = network.encode(list(frames[..., :height, :width]))
    outputs = network.decode(encoded, len(frames))
    probabilities = network.classify(len(outputs) - 1, outputs[-1])[0].sigmoid()
    candidates = probabilities.amax(1).topk(CANDIDATES).indices
    masks = network.masks(
        encoded, outputs[-1].instance_queries[0, candidates], outputs[-1].reference[0][:, candidates]
    )
    return dict(zip(NAMES, (probabilities, outputs[-1].boxes[0], candidates, masks), strict=True))


def assert_same(results: list[Tensor], model: SeqFormer, frames: Tensor, size: Tensor) -> None:
    for result, (name, value) in zip(results, expected(model, frames, size).items(), strict=True):
        torch.testing.assert_close(result, value, rtol=1e-3, atol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("clip", CLIPS)
def test_the_two_modules_compute_what_the_network_does(model: SeqFormer, clip: tuple[int, ...]) -> None:
    frames, size = clip_inputs(clip)
    *memory, mask_features = FrameEncoder(model.network)(frames, size)
    with torch.no_grad():
        results = ClipDecoder(model.network, CANDIDATES)(memory, mask_features, size)
    assert_same(list(results), model, frames, size)


@pytest.fixture(scope="module")
def onnx_folder(model: SeqFormer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("onnx") / "tiny"
    export_model(
        model.network, folder, ["onnx"], num_candidates=CANDIDATES, description={"class_names": ["a"]}
    )
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("clip", CLIPS)
def test_onnx_is_equal_at_other_lengths_and_sizes(
    model: SeqFormer, onnx_folder: Path, clip: tuple[int, ...]
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    encoder, decoder = (
        runtime.InferenceSession(onnx_folder / f"{part}.onnx", providers=["CPUExecutionProvider"])
        for part in ("encoder", "decoder")
    )
    frames, size = clip_inputs(clip)
    shape = {"size": size.numpy()}
    # Each frame on its own, as a program encodes it that keeps encoded frames for several clips.
    rows = [encoder.run(ENCODED, {"frames": frame[None].numpy(), **shape}) for frame in frames]
    encoded = {
        name: np.concatenate(parts) for name, parts in zip(ENCODED, zip(*rows, strict=True), strict=True)
    }
    results = decoder.run(NAMES, {**encoded, **shape})
    assert_same([torch.from_numpy(result) for result in results], model, frames, size)


@pytest.mark.slow
def test_onnx_has_standard_operators_only(onnx_folder: Path) -> None:
    onnx = pytest.importorskip("onnx")
    for part in ("encoder", "decoder"):
        graph = onnx.load(onnx_folder / f"{part}.onnx")
        onnx.checker.check_model(graph)
        assert {opset.domain for opset in graph.opset_import} <= {"", "ai.onnx"}
        assert any(node.op_type == "GridSample" for node in graph.graph.node)
    described = json.loads((onnx_folder / "model.json").read_text())
    assert described["class_names"] == ["a"] and described["outputs"]["encoder"] == ENCODED


RUN_PROGRAMS = """
import sys, torch
folder, library, form = sys.argv[1:]
torch.ops.load_library(library)
if form == "pt2":
    load = lambda part: torch.export.load(f"{folder}/{part}.pt2").module()
else:
    load = lambda part: torch._inductor.aoti_load_package(f"{folder}/{part}_aoti.pt2")
encoder, decoder = load("encoder"), load("decoder")
clips = torch.load(f"{folder}/clips.pt")
results = []
for frames, size in clips:
    *memory, mask_features = encoder(frames, size)
    results.append([x.detach() for x in decoder(memory, mask_features, size)])
assert not any(name.split(".")[0] in ("seqformer", "detectron2") for name in sys.modules)
torch.save(results, f"{folder}/results.pt")
"""


@pytest.mark.slow
@pytest.mark.skipif(not is_compiled, reason="the operator is not compiled")
@pytest.mark.parametrize("form", ["pt2", "aoti"])
def test_exported_programs_need_the_operator_library_alone(
    model: SeqFormer, tmp_path: Path, form: str
) -> None:
    folder = tmp_path / "tiny"
    export_model(model.network, folder, [form], num_candidates=CANDIDATES, description={})
    clips = [clip_inputs(clip) for clip in CLIPS]
    torch.save(clips, folder / "clips.pt")
    (library,) = Path(seqformer.__file__).parent.glob("_C*.so")
    command = [sys.executable, "-c", RUN_PROGRAMS, str(folder), str(library), form]
    subprocess.run(command, check=True, cwd=tmp_path)
    for (frames, size), results in zip(clips, torch.load(folder / "results.pt"), strict=True):
        assert_same(results, model, frames, size)


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit_:
        export.main(arguments)
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


def test_an_existing_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "exists" in refused([str(tmp_path)], capsys)


def test_the_original_protocol_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = tiny_config(RESULT_PROTOCOL="original")
    (tmp_path / "config.yaml").write_text(cfg.dump())
    torch.save({"model": SeqFormer(cfg).state_dict()}, tmp_path / "model.pth")
    arguments = [str(tmp_path / "out"), "--config-file", str(tmp_path / "config.yaml")]
    error = refused([*arguments, "--weights", str(tmp_path / "model.pth")], capsys)
    assert "RESULT_PROTOCOL" in error and not (tmp_path / "out").exists()


def test_reduced_precision_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = refused([str(tmp_path / "out"), "--opts", "MODEL.SeqFormer.PRECISION", "int8"], capsys)
    assert "PRECISION fp32" in error and not (tmp_path / "out").exists()


def test_missing_packages_are_named(
    model: SeqFormer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install onnx onnxscript"):
        export_model(model.network, tmp_path / "out", ["onnx"], num_candidates=1, description={})
    with pytest.raises(InputError, match="must be of onnx, pt2, aoti, not tflite"):
        export_model(model.network, tmp_path / "out", ["tflite"], num_candidates=1, description={})


@pytest.mark.skipif(not is_compiled, reason="the operator is not compiled")
def test_a_missing_compiler_is_reported_before_anything_is_traced(
    model: SeqFormer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, "/nonexistent/g++"))
    monkeypatch.setattr("torch.export.export", None)
    with pytest.raises(InputError, match="the format aoti needs a C"):
        export_model(model.network, tmp_path / "out", ["pt2", "aoti"], num_candidates=1, description={})
    assert not (tmp_path / "out").exists()
