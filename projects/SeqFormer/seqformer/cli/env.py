"""Reports installed packages, devices and compilers, and how to install what is missing.

    seqformer env

Exit code 1: something that SeqFormer needs is missing.
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
    advice: str = ""  # what to do if something is missing
    blocking: bool = False  # SeqFormer cannot run without it


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
    Package("safetensors", "safetensors", "pip install safetensors", required=True),
    Package("OpenCV", "cv2", "pip install opencv-python-headless (draws the results)"),
    Package("PyAV", "av", "pip install av (reads and writes videos)"),
    Package("timm", "timm", "pip install timm (backbones, the shipped model's among them)"),
    Package("supervision", "supervision", "pip install supervision (its annotators and tools)"),
    Package("gdown", "gdown", "pip install gdown (downloads the released weights from Google Drive)"),
    Package("Hugging Face Hub", "huggingface_hub", "pip install huggingface_hub (hf:// addresses)"),
)


def package_facts() -> list[Fact]:
    """Returns version and distribution of every package that SeqFormer uses."""
    distributions = importlib.metadata.packages_distributions()
    facts = []
    for package in PACKAGES:
        spec = importlib.util.find_spec(package.module)
        if spec is None or spec.origin is None:
            facts.append(Fact(package.name, "not installed", package.advice, blocking=package.required))
            continue
        names = sorted(set(distributions.get(package.module, ())))
        value = ", ".join(f"{importlib.metadata.version(name)} ({name})" for name in names)
        facts.append(Fact(package.name, value or "installed, but not by pip"))
    return facts


def cpu_name() -> str:
    """Returns the name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def device_facts() -> list[Fact]:
    """Returns the devices that PyTorch can use."""
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
        facts.append(Fact("CUDA devices", f"none ({why})", f"optional; {advice}"))
    return facts


def first_program(*candidates: str | None) -> str | None:
    """Returns the path of the first candidate that is an executable program."""
    return next((path for name in candidates if name and (path := shutil.which(name))), None)


def compiler_facts() -> list[Fact]:
    """Returns the compilers that can build the operator."""
    cuda_home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    nvcc = first_program(f"{cuda_home}/bin/nvcc", "nvcc")
    if nvcc is None:
        cuda = Fact("CUDA toolkit", "not found", "optional; set CUDA_HOME if it is installed")
    else:
        output = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
        release = re.search(r"release ([\d.]+)", output)
        cuda = Fact("CUDA toolkit", f"{release[1] if release else 'unknown version'} ({nvcc})")
    compiler = first_program(os.environ.get("CXX"), "c++", "g++", "clang++")
    return [cuda, Fact("C++ compiler", compiler or "not found", "" if compiler else "optional")]


def seqformer_facts() -> list[Fact]:
    """Returns the location of SeqFormer, its operator and its model."""
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
        facts.append(Fact("Deformable attention", "not usable", f"fix this first: {problem}", blocking=True))

    try:
        facts.append(Fact("Shipped model", str(model_zoo.get_weights_file(model_zoo.SHIPPED_MODEL))))
    except InputError:
        advice = "restore it: git checkout -- demo/assets (in the repository), or install the package again"
        facts.append(Fact("Shipped model", "missing", advice))
    return facts


def collect_environment() -> list[Fact]:
    """Returns all lines of the report, in order."""
    python = Fact("Python", f"{platform.python_version()} ({sys.executable}), {platform.platform()}")
    return [*seqformer_facts(), python, *package_facts(), *device_facts(), *compiler_facts()]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds nothing: the report has no options."""


def run(args: argparse.Namespace) -> int:
    """Prints the report. Returns 1 if SeqFormer cannot run, else 0."""
    facts = collect_environment()
    width = max(len(fact.name) for fact in facts)
    for fact in facts:
        print(f"{fact.name:<{width}}  {fact.value}")
        for line in fact.advice.splitlines():
            print(f"{'':<{width}}    -> {line}")
    return int(any(fact.blocking for fact in facts))


main = program(add_arguments, run, __doc__, prog="python -m seqformer.env")
