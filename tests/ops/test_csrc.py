"""The operators' C++: functors of the CUDA kernels run on the CPU, and CPU kernels run with sanitizers."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from ops.inputs import FLOATS, assert_agrees, in_double, make_inputs
from torch import Tensor

from seqformer.ops.reference import ms_deform_attn_reference

COMPILER = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
SOURCES = Path(__file__).parent / "csrc"
TYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")


class Call(ctypes.Structure):
    """``Call`` of csrc/call.h."""

    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in ["images", "cells", "heads", "channels", "queries", "levels", "points"]
        ),
        ("value_type", ctypes.c_int),
        ("location_type", ctypes.c_int),
        *(
            (name, ctypes.c_void_p)
            for name in ["value", "shapes", "starts", "locations", "weights", "reference"]
        ),
        ("reference_size", ctypes.c_int64),
        *(
            (name, ctypes.c_void_p)
            for name in ["output", "grad_output", "grad_value", "grad_locations", "grad_weights"]
        ),
    ]


@pytest.fixture(scope="session")
def csrc(repository: Path) -> Path:
    return repository / "projects/SeqFormer/seqformer/ops/csrc"


@pytest.fixture(scope="session")
def functors(csrc: Path, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    library = tmp_path_factory.mktemp("functors") / "functors.so"
    include = Path(torch.__file__).parent / "include"
    command = [COMPILER, "-std=c++20", "-O1", "-shared", "-fPIC", f"-I{csrc}", f"-I{include}"]
    subprocess.run([*command, SOURCES / "functors.cpp", "-o", library], check=True)
    return ctypes.CDLL(str(library))


def run(functors: ctypes.CDLL, inputs: tuple[Tensor, ...], **tensors: Tensor) -> None:
    """Runs the functors. ``tensors`` are the other inputs and outputs of the pass."""
    value, shapes, starts, locations, weights = inputs
    n, cells, heads, channels = value.shape
    _, queries, _, levels, points = weights.shape
    call = Call(n, cells, heads, channels, queries, levels, points, TYPES[value.dtype], TYPES[weights.dtype])
    tensors |= {
        "value": value,
        "shapes": shapes,
        "starts": starts,
        "locations": locations,
        "weights": weights,
    }
    for name, tensor in tensors.items():
        assert tensor.is_contiguous()
        setattr(call, name, tensor.data_ptr())
    functors.run(ctypes.byref(call), "grad_output" in tensors)


PROBLEMS = [
    {"shapes": [(5, 7)]},
    {"shapes": [(6, 4), (3, 2), (1, 1)], "channels": 32, "points": 4},
    {"shapes": [(1, 9), (4, 1)], "images": 3, "heads": 3, "channels": 1, "points": 1},
    {"shapes": [(3, 3)], "queries": 0},
    {"shapes": [(13, 11), (7, 5)], "queries": 17, "channels": 37, "points": 3},
]


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_cuda_functors_agree_with_the_reference(functors, problem: dict, dtype: torch.dtype, mixed: bool):
    half = dtype.itemsize == 2
    location_dtype = torch.float32 if mixed and half else dtype
    inputs = make_inputs(**problem, dtype=dtype, location_dtype=location_dtype)
    exact = [t.clone().requires_grad_() if t.is_floating_point() else t for t in in_double(inputs)]
    expected = ms_deform_attn_reference(*exact)

    output = torch.empty(expected.shape, dtype=dtype)
    run(functors, inputs, output=output)
    assert_agrees(output, expected.detach())

    grad_output = torch.randn(expected.shape).to(dtype)
    expected.backward(grad_output.double())
    sums = torch.float64 if dtype == torch.float64 else torch.float32
    grads = {
        "grad_value": torch.zeros(inputs[0].shape, dtype=sums),
        "grad_locations": torch.empty_like(inputs[3]),
        "grad_weights": torch.empty_like(inputs[4]),
    }
    run(functors, inputs, grad_output=grad_output, **grads)
    for tensor, argument in zip(grads.values(), (exact[0], exact[3], exact[4]), strict=True):
        assert_agrees(tensor, argument.grad)


@pytest.mark.slow
def test_kernels_agree_with_the_functors_under_sanitizers(csrc: Path, tmp_path: Path) -> None:
    flags = ["-std=c++20", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-Wno-psabi"]
    sources = [SOURCES / "fuzz.cpp", *sorted((csrc / "cpu").glob("*.cpp"))]
    sources = [source for source in sources if source.name != "ops.cpp"]
    builds = [
        subprocess.Popen([COMPILER, *flags, f"-I{csrc}", "-c", s, "-o", tmp_path / f"{s.stem}.o"])
        for s in sources
    ]
    assert all(build.wait() == 0 for build in builds)
    program = tmp_path / "fuzz"
    subprocess.run([COMPILER, *flags, *tmp_path.glob("*.o"), "-o", program], check=True)
    process = subprocess.run([program, "300", "0"], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("300 calls of each type agree")
