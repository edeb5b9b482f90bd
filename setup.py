"""Builds the compiled operators and copies files into the wheel. The rest of the package is in setup.cfg.

Compiling needs a C++ compiler. CUDA also needs a toolkit with the major version that PyTorch was built with,
but no GPU. Without them the package still works, with operators for CPUs only or in plain PyTorch.

Environment variables:
    FORCE_CUDA=1             fail if CUDA operators cannot be compiled; 0 does not compile them
    SEQFORMER_REQUIRE_OP=1   fail if CPU operators cannot be compiled; 0 compiles nothing
    CUDA_HOME                folder of the CUDA toolkit
    TORCH_CUDA_ARCH_LIST     GPU architectures (default: the visible GPUs', or 7.5, 8.0, 9.0 and newer)
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SOURCES = Path("projects/SeqFormer/seqformer/ops/csrc")
FORCE_CUDA = os.environ.get("FORCE_CUDA", "")
REQUIRE_OP = os.environ.get("SEQFORMER_REQUIRE_OP", "")
NOT_COMPILED = "the operator is not compiled; slower plain PyTorch will be used"


def warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


def find_toolkit(version: str | None) -> Path | None:
    """Returns the folder of the CUDA toolkit with that major version, or None.

    Known folders are tried before PATH, where nvcc can be a link or script outside the toolkit.

    Exits if there is none and FORCE_CUDA is 1.
    """
    if FORCE_CUDA == "0":
        return None
    reason = "PyTorch was built without CUDA"
    if version is not None:
        nvcc = shutil.which("nvcc")
        candidates = [
            os.environ.get("CUDA_HOME"),
            os.environ.get("CUDA_PATH"),
            f"/usr/local/cuda-{version}",
            "/usr/local/cuda",
            nvcc and str(Path(nvcc).resolve().parents[1]),
        ]
        reason = f"no CUDA {version} toolkit was found (set CUDA_HOME to its folder)"
        for folder in filter(None, candidates):
            program = Path(folder, "bin", "nvcc")
            if not program.is_file():
                continue
            output = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
            release = re.search(r"release (\d+)\.", output)
            if release and release[1] == version.split(".")[0]:
                return Path(folder)
            installed = release[0] if release else "not nvcc"
            reason = f"PyTorch was built for CUDA {version}, but {program} is {installed}"
    if FORCE_CUDA == "1":
        sys.exit(f"error: FORCE_CUDA=1, but {reason}")
    return None


def compiled_operator() -> dict:
    """Returns the arguments of setup() that compile the operators."""
    if REQUIRE_OP == "0":
        return {}
    try:
        import torch
    except ImportError:
        if FORCE_CUDA == "1" or REQUIRE_OP == "1":
            raise
        warn(f"{NOT_COMPILED}: PyTorch cannot be imported; install it first and use --no-build-isolation")
        return {}
    toolkit = find_toolkit(torch.version.cuda)
    if toolkit is not None:
        os.environ["CUDA_HOME"] = str(toolkit)  # read when cpp_extension is imported
        if not torch.cuda.is_available():
            os.environ.setdefault("TORCH_CUDA_ARCH_LIST", "7.5;8.0;9.0+PTX")

    from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension

    def extension(cuda: bool):
        sources = [path for path in SOURCES.rglob("*.c*") if cuda or path.parent.name != "cuda"]
        openmp = ["-fopenmp"] if sys.platform == "linux" else []
        flags = ["-O3", "-std=c++20", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi", "-g0", *openmp]
        return (CUDAExtension if cuda else CppExtension)(
            "seqformer._C",
            sorted(map(str, sources)),
            extra_compile_args={"cxx": flags, "nvcc": ["-O3", "-std=c++20"]},
            extra_link_args=openmp,
            depends=sorted(map(str, SOURCES.rglob("*.[hi]*"))),
        )

    class Build(BuildExtension):
        """Compiles as much as possible, and fails only if more is required."""

        def build_extensions(self) -> None:
            for cuda in (True, False) if toolkit else (False,):
                compiled = extension(cuda)
                compiled.__dict__.update({k: v for k, v in vars(self.extensions[0]).items() if k[0] == "_"})
                self.extensions[:] = [compiled]
                try:
                    return super().build_extensions()
                except Exception as error:  # compilers fail in many ways
                    if FORCE_CUDA == "1" or (REQUIRE_OP == "1" and not cuda):
                        raise
                    reason = (str(error).strip() or type(error).__name__).split("\n")[-1]
                    warn(f"{'the operator is not compiled for CUDA' if cuda else NOT_COMPILED}: {reason}")
            self.extensions[:] = []

        def copy_extensions_to_source(self) -> None:
            if self.extensions:
                super().copy_extensions_to_source()

    return {"ext_modules": [extension(toolkit is not None)], "cmdclass": {"build_ext": Build}}


class BuildWithFiles(build_py):
    """Copies the configs and the shipped model into the package for `seqformer.model_zoo`.

    Editable installations use them from the repository.
    """

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for pattern in ("configs/**/*.yaml", "demo/assets/*.safetensors"):
            for path in sorted(Path().glob(pattern)):
                target = Path(self.build_lib, "seqformer", "files", path)
                target.parent.mkdir(parents=True, exist_ok=True)
                self.copy_file(str(path), str(target))


build = compiled_operator()
build.setdefault("cmdclass", {})["build_py"] = BuildWithFiles
setup(**build)
