"""Building: the operators when requirements are missing, and the files that a wheel carries."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def checkout(repository: Path, tmp_path: Path) -> Path:
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repository / name, tmp_path)
    sources = "projects/SeqFormer/seqformer"
    shutil.copytree(repository / sources, tmp_path / sources, ignore=shutil.ignore_patterns("*.so"))
    return tmp_path


def build(checkout: Path, before: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Compiles in place; ``before`` runs first in the same process."""
    code = f"{before}\nimport runpy, sys\nsys.argv = ['setup.py', 'build_ext', '--inplace']\n"
    command = [sys.executable, "-c", code + "runpy.run_path('setup.py', run_name='__main__')"]
    env = {
        k: v for k, v in os.environ.items() if k not in ("FORCE_CUDA", "SEQFORMER_REQUIRE_OP")
    } | environment
    return subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True)


def warnings(process: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in process.stderr.splitlines() if line.startswith("warning: the operator")]


def test_without_a_compiler_there_is_one_warning(checkout):
    process = build(checkout, CXX="false", CC="false", FORCE_CUDA="0")
    assert process.returncode == 0, process.stderr
    assert len(warnings(process)) == 1
    assert "not compiled; slower plain PyTorch will be used: " in warnings(process)[0]
    assert not list(checkout.rglob("*.so"))


def test_without_pytorch_there_is_one_warning(checkout):
    process = build(checkout, before="import sys; sys.modules['torch'] = None")
    assert process.returncode == 0, process.stderr
    assert len(warnings(process)) == 1
    assert "PyTorch cannot be imported" in warnings(process)[0]


def test_missing_compiler_is_an_error_if_required(checkout):
    process = build(checkout, CXX="false", CC="false", FORCE_CUDA="0", SEQFORMER_REQUIRE_OP="1")
    assert process.returncode != 0


OTHER_CUDA = "import torch; torch.version.cuda = '99.1'"


def test_required_but_impossible_cuda_is_reported_in_one_line(checkout):
    process = build(checkout, before=OTHER_CUDA, FORCE_CUDA="1")
    assert process.returncode != 0
    assert len(process.stderr.splitlines()) == 1
    assert process.stderr.startswith("error: FORCE_CUDA=1, but ")
    assert "CUDA 99.1" in process.stderr


def test_toolkit_of_another_version_is_not_used(checkout, tmp_path):
    nvcc = tmp_path / "toolkit/bin/nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text("#!/bin/sh\necho Cuda compilation tools, release 98.0, V98.0.1\n")
    nvcc.chmod(0o755)
    environment = {"FORCE_CUDA": "1", "CUDA_HOME": str(tmp_path / "toolkit")}
    process = build(checkout, before=OTHER_CUDA, **environment)
    assert "PyTorch was built for CUDA 99.1, but " in process.stderr


def test_an_installed_package_has_configs_and_the_shipped_model(repository, tmp_path):
    """As a wheel has them: in the package, so that commands work from any folder."""
    process = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_py", "--build-lib", str(tmp_path)],
        cwd=repository,
        env={**os.environ, "SEQFORMER_REQUIRE_OP": "0"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    code = (
        "from seqformer import model_zoo as zoo\n"
        "print(zoo.get_weights_file(zoo.SHIPPED_MODEL))\n"
        "print(*zoo.list_configs(), sep='\\n')"
    )
    process = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    weights, *configs = process.stdout.splitlines()
    assert Path(weights).is_relative_to(tmp_path) and Path(weights).is_file()
    assert {"ytvis19/seqformer_R50", "released/seqformer_R50_joint"} <= set(configs)
    package = tmp_path / "seqformer"
    for name in ("py.typed", "page/assets/page.js", "data/photo_vis/cutouts.txt"):
        assert (package / name).is_file(), name
