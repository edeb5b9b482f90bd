"""Writes a network as ONNX files, PyTorch's exported programs, or these compiled for this processor."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from seqformer.deployment.graphs import ClipDecoder, FrameEncoder, with_fixed_padding, with_grid_sample
from seqformer.errors import InputError
from seqformer.formats.files import new_folder, write_json
from seqformer.modeling.network import SeqFormerNetwork
from seqformer.ops import implementation, is_compiled

__all__ = ["FORMATS", "export_model"]

FORMATS = ("onnx", "pt2", "aoti")
_OPSET = 20  # the first with GridSample as it is now
_LARGEST = 8192  # pixels of a side
_MOST_FRAMES = 4096
_EXAMPLE = (3, 160, 224)  # frames, height and width that are traced; the result works with others

_Programs = dict[str, ExportedProgram]


def export_model(
    network: SeqFormerNetwork,
    output: str | Path,
    formats: Collection[str],
    *,
    num_candidates: int,
    description: Mapping[str, Any],
) -> None:
    """Writes ``encoder`` and ``decoder`` in each format, and model.json, to a new folder.

    The encoder is :class:`FrameEncoder`, the decoder :class:`ClipDecoder`. The number of frames and their
    size are free. ONNX needs standard operators only; "pt2" and "aoti" need this package's operators. The
    latter is compiled to machine code of this processor by AOTInductor, which takes minutes.

    Args:
        network: a network in eval mode.
        output: the folder.
        formats: of :data:`FORMATS`.
        num_candidates: number of queries whose masks the decoder returns, at most.
        description: what else model.json says.

    Raises:
        InputError: if a package or compiler is missing, the network cannot be exported, or the folder exists.
    """
    _check(formats)
    network = with_fixed_padding(network).cpu().eval().requires_grad_(False)
    num_levels = network.detr.transformer.level_embed.shape[0]
    encoded = [*(f"memory{level}" for level in range(num_levels)), "mask_features"]
    inputs = {"encoder": ["frames", "size"], "decoder": [*encoded, "size"]}
    outputs = {
        "encoder": encoded,
        "decoder": ["probabilities", "boxes", "candidates", "mask_logits"],
    }
    with new_folder(output) as folder:
        for name in formats:
            exported = with_grid_sample(network) if name == "onnx" else network
            for part, program in _trace(exported, num_candidates).items():
                if name == "onnx":
                    _write_onnx(program, folder / f"{part}.onnx", inputs[part], outputs[part])
                elif name == "pt2":
                    torch.export.save(program, folder / f"{part}.pt2")
                else:
                    _write_compiled(program, folder / f"{part}_aoti.pt2")
        size = {"size_divisibility": 32, "min_padded_size": 96, "max_padded_size": _LARGEST}
        tensors = {"inputs": inputs, "outputs": outputs}
        write_json(folder / "model.json", {**description, **size, **tensors})


def _check(formats: Collection[str]) -> None:
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise InputError(f"`formats` must be of {', '.join(FORMATS)}, not {', '.join(unknown) or 'none'}")
    if "onnx" in formats:
        missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
        if missing:
            raise InputError(f"ONNX needs packages that are missing: pip install {' '.join(missing)}")
    for name in ("pt2", "aoti"):
        if name in formats and not is_compiled:
            raise InputError(f"the format {name} needs the compiled operator, but it is {implementation()}")
    if "aoti" in formats:
        _check_compiler()


def _check_compiler() -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler  # imports PyTorch's compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise InputError("the format aoti needs a C++ compiler, such as g++, and none was found") from error


def _trace(network: SeqFormerNetwork, num_candidates: int) -> _Programs:
    """Returns the two programs. Padded sides are multiples of 32; level sizes follow from them."""
    encoder, decoder = FrameEncoder(network), ClipDecoder(network, num_candidates)
    n, height, width = _EXAMPLE
    frames = torch.zeros(n, 3, height, width, dtype=torch.uint8)
    size = torch.tensor([height - 5, width - 9])
    frame, h, w = Dim("frame", max=_MOST_FRAMES), *(Dim(i, max=_LARGEST // 32) for i in ("h", "w"))
    levels = [{0: frame, 1: scale * h, 2: scale * w} for scale in (4, 2)] + [{0: frame, 1: h, 2: w}]
    with torch.no_grad():
        *memory, mask_features = encoder(frames, size)
    for level in range(len(levels), len(memory)):
        levels.append({0: frame, 1: Dim(f"h{level}", max=_LARGEST), 2: Dim(f"w{level}", max=_LARGEST)})
    return {
        "encoder": _export(encoder, (frames, size), ({0: frame, 2: 32 * h, 3: 32 * w}, None)),
        "decoder": _export(
            decoder,
            (memory, mask_features, size),
            (levels, {0: frame, 2: 4 * h, 3: 4 * w}, None),
        ),
    }


def _export(module: torch.nn.Module, inputs: tuple[Any, ...], shapes: tuple[Any, ...]) -> ExportedProgram:
    try:
        with torch.no_grad():
            return torch.export.export(module, inputs, dynamic_shapes=shapes, strict=False)
    except torch._dynamo.exc.UserError as error:
        reason = str(error).split("\n")[0]
        raise InputError(f"the network cannot be exported with free sizes: {reason}") from error


def _write_onnx(program: ExportedProgram, path: Path, inputs: list[str], outputs: list[str]) -> None:
    with _quiet("onnxscript", "onnx_ir", "torch.onnx"):
        written = torch.onnx.export(
            program,
            input_names=inputs,
            output_names=outputs,
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
            external_data=False,
        )
    if written is None:
        raise RuntimeError("torch.onnx returned no model")
    written.save(str(path), external_data=False)


def _write_compiled(program: ExportedProgram, path: Path) -> None:
    from torch._inductor import aoti_compile_and_package
    from torch._inductor.exc import CppCompileError, InductorError

    try:
        with torch.no_grad():
            aoti_compile_and_package(program, package_path=str(path))
    except (CppCompileError, InductorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"the format aoti cannot be compiled: {reason}") from error


@contextmanager
def _quiet(*loggers: str) -> Iterator[None]:
    """Hides remarks of packages below the level of an error."""
    levels = {name: logging.getLogger(name).level for name in loggers}
    for name in loggers:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
