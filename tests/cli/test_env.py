"""``python -m seqformer.env``, run in a new process."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest


def run_report(without: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Returns the report of a new process in which the modules ``without`` cannot be imported."""
    return run_python(["-W", "default", "-m", "seqformer.env"], without, folder)


def run_python(arguments: list[str], without: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a new Python in which the modules ``without`` cannot be imported."""
    lines = ["import sys"] + [f"sys.modules[{module!r}] = None" for module in without]
    (folder / "sitecustomize.py").write_text("\n".join(lines))
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, *arguments]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)


def facts(report: str) -> dict[str, str]:
    """Returns values by name, from the lines that start in the first column."""
    pairs = (line.split("  ", 1) for line in report.splitlines() if not line.startswith(" "))
    return {name: value.strip() for name, value in pairs}


def test_complete_installation(tmp_path):
    process = run_report([], tmp_path)
    assert (process.returncode, process.stderr) == (0, "")
    found = facts(process.stdout)
    assert found["PyTorch"].startswith(version("torch"))
    assert found["NumPy"].startswith(version("numpy"))
    assert "detectron2" in found["Detectron2"]
    assert "threads" in found["CPU kernels"]
    assert found["Deformable attention"].startswith(("compiled, ", "plain PyTorch ("))
    assert any(name.startswith("CUDA device") for name in found)
    assert {"CUDA toolkit", "C++ compiler", "Shipped model"} <= set(found)


def test_operator_not_compiled(tmp_path):
    process = run_report(["seqformer._C"], tmp_path)
    assert facts(process.stdout)["Deformable attention"].startswith("plain PyTorch (")
    assert "-> with a C++ compiler: pip install -v --no-build-isolation" in process.stdout
    assert process.returncode == 0


def test_optional_packages_missing(tmp_path):
    process = run_report(["timm", "av", "cv2", "supervision"], tmp_path)
    assert (process.returncode, process.stderr) == (0, "")
    found = facts(process.stdout)
    packages = {
        "timm": "timm",
        "PyAV": "av",
        "supervision": "supervision",
        "OpenCV": "opencv-python-headless",
    }
    for name, package in packages.items():
        assert found[name] == "not installed"
        assert f"-> pip install {package}" in process.stdout
    assert found["PyTorch"].startswith(version("torch"))


def test_the_network_can_be_imported_without_optional_packages(tmp_path):
    """The report hides import errors of the package, so it would not show this."""
    code = "from seqformer import SeqFormer; print(SeqFormer.__name__)"
    process = run_python(["-c", code], ["timm", "av", "matplotlib"], tmp_path)
    assert (process.returncode, process.stdout) == (0, "SeqFormer\n"), process.stderr


@pytest.mark.parametrize(
    ("module", "name", "advice"),
    [
        ("detectron2", "Detectron2", "sal-detectron2==0.7.2"),
        ("detectron2", "Detectron2", "git+https://github.com/facebookresearch/detectron2"),
        ("torch", "PyTorch", "pip install torch"),
    ],
)
def test_required_package_missing(tmp_path, module, name, advice):
    process = run_report([module], tmp_path)
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    assert facts(process.stdout)[name] == "not installed"
    assert advice in process.stdout
