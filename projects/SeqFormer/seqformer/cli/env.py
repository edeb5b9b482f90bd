"""``python -m seqformer.env``: what is installed, what it runs on, and what to do about what is missing.

Ends with exit code 1 when something that SeqFormer cannot run without is missing.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from seqformer import model_zoo
from seqformer.cli.program import program
from seqformer.dependencies import HOW_TO_GET_DETECTRON2
from seqformer.errors import InputError

__all__ = ["Fact", "add_arguments", "collect_environment", "main", "run"]


@dataclass(frozen=True)
class Fact:
    """One line of the report."""

    name: str
    value: str
    advice: str = ""  # what to do, where something is missing
    blocking: bool = False  # SeqFormer does not run like this


@dataclass(frozen=True)
class Package:
    """A package that SeqFormer uses."""

    name: str
    module: str
    advice: str
    required: bool = False


PACKAGES = (
    Package("PyTorch", "torch", "pip install torch torchvision", required=True),
    Package("torchvision", "torchvision", "pip install torchvision", required=True),
    Package("Detectron2", "detectron2", HOW_TO_GET_DETECTRON2, required=True),
    Package("NumPy", "numpy", "pip install numpy", required=True),
    Package("pycocotools", "pycocotools", "pip install pycocotools", required=True),
    Package("fvcore", "fvcore", "pip install fvcore", required=True),
    Package("OpenCV", "cv2", "pip install opencv-python-headless (draws the results)"),
    Package("PyAV", "av", "pip install av (reads and writes videos)"),
    Package("timm", "timm", "pip install timm (backbones, the shipped model's among them)"),
    Package("safetensors", "safetensors", "pip install safetensors (reads the shipped model)"),
)


def package_facts() -> list[Fact]:
    """Version and distribution of every package that SeqFormer uses."""
    distributions = importlib.metadata.packages_distributions()
    facts = []
    for package in PACKAGES:
        spec = importlib.util.find_spec(package.module)
        if spec is None or spec.origin is None:
            facts.append(Fact(package.name, "not installed", package.advice, blocking=package.required))
            continue
        names = sorted(set(distributions.get(package.module, ())))
        value = ", ".join(f"{importlib.metadata.version(name)} ({name})" for name in names)
        facts.append(Fact(package.name, value or "found, but no distribution claims it"))
    return facts


def cpu_name() -> str:
    """The processor's name, as precisely as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def device_facts() -> list[Fact]:
    """What PyTorch can compute on."""
    facts = [Fact("CPU", f"{cpu_name()}, {os.cpu_count()} cores")]
    try:
        import torch
    except ImportError as error:
        return [*facts, Fact("Devices", f"PyTorch cannot be imported: {error}", blocking=True)]
    capability = torch.backends.cpu.get_cpu_capability()
    facts.append(Fact("CPU kernels", f"{capability}, {torch.get_num_threads()} threads"))
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        memory = f"{device.total_memory / 2**30:.0f} GiB"
        facts.append(
            Fact(f"CUDA device {index}", f"{device.name}, {memory}, capability {device.major}.{device.minor}")
        )
    if not torch.cuda.is_available():
        if torch.version.cuda is None:
            why, advice = "PyTorch is built without CUDA", "for an NVIDIA GPU, install PyTorch with CUDA"
        else:
            why = f"PyTorch is built for CUDA {torch.version.cuda}"
            advice = "for an NVIDIA GPU, check its driver with nvidia-smi"
        facts.append(Fact("CUDA devices", f"none ({why})", f"none is needed; {advice}"))
    return facts


def first_program(*candidates: str | None) -> str | None:
    """Path of the first candidate that is an executable program."""
    return next((path for name in candidates if name and (path := shutil.which(name))), None)


def compiler_facts() -> list[Fact]:
    """The compilers that a compiled operator takes."""
    cuda_home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    nvcc = first_program(f"{cuda_home}/bin/nvcc", "nvcc")
    if nvcc is None:
        cuda = Fact("CUDA toolkit", "not found", "none is needed; CUDA_HOME says where one is")
    else:
        output = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
        release = re.search(r"release ([\d.]+)", output)
        cuda = Fact("CUDA toolkit", f"{release[1] if release else 'unknown version'} ({nvcc})")
    compiler = first_program(os.environ.get("CXX"), "c++", "g++", "clang++")
    return [cuda, Fact("C++ compiler", compiler or "not found", "" if compiler else "none is needed")]


def seqformer_facts() -> list[Fact]:
    """SeqFormer itself: where it is, its operator, its model."""
    package = Path(__file__).resolve().parents[1]
    try:
        version = importlib.metadata.version("seqformer-d2")
        facts = [Fact("SeqFormer", f"{version} ({package})")]
    except importlib.metadata.PackageNotFoundError:
        advice = "pip install --no-build-isolation -e . (in the repository)"
        facts = [Fact("SeqFormer", f"not installed, run from {package}", advice)]

    try:
        from seqformer.ops import implementation, is_compiled

        advice = (
            "" if is_compiled else "with a C++ compiler: pip install -v --no-build-isolation --no-deps -e ."
        )
        facts.append(Fact("Deformable attention", implementation(), advice))
    except ImportError as error:
        problem = str(error).splitlines()[0]
        facts.append(Fact("Deformable attention", "not usable", f"first solve: {problem}", blocking=True))

    try:
        facts.append(Fact("Shipped model", str(model_zoo.get_weights_file(model_zoo.SHIPPED_MODEL))))
    except InputError:
        advice = "restore it: git checkout -- demo/assets (in the repository), or install the package again"
        facts.append(Fact("Shipped model", "missing", advice))
    return facts


def collect_environment() -> list[Fact]:
    """All lines of the report, in order."""
    python = Fact("Python", f"{platform.python_version()} ({sys.executable}), {platform.platform()}")
    return [*seqformer_facts(), python, *package_facts(), *device_facts(), *compiler_facts()]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The report has no options."""


def run(args: argparse.Namespace) -> int:
    """Prints the report; returns 1 when SeqFormer cannot run, else 0."""
    facts = collect_environment()
    width = max(len(fact.name) for fact in facts)
    for fact in facts:
        print(f"{fact.name:<{width}}  {fact.value}")
        for line in fact.advice.splitlines():
            print(f"{'':<{width}}    -> {line}")
    return int(any(fact.blocking for fact in facts))


main = program(add_arguments, run, __doc__, prog="python -m seqformer.env")
