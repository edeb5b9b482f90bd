"""The compiled operator and the files that a wheel carries; setup.cfg describes the rest of the package.

It takes a C++ compiler, and for CUDA a toolkit of the major version that PyTorch was built with; a device
need not be visible. Without these the package works, too: with the operator for CPUs alone, or in plain
PyTorch.

    FORCE_CUDA=1             compile for CUDA, or fail; 0 does not compile for CUDA
    SEQFORMER_REQUIRE_OP=1   compile for CPUs at least, or fail; 0 does not compile
    CUDA_HOME                where the toolkit is
    TORCH_CUDA_ARCH_LIST     for which devices (default: the visible ones', or 7.5, 8.0, 9.0 and newer)
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
NOT_COMPILED = "the operator is not compiled, and the slower one in plain PyTorch will be used"


def warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


def find_toolkit(version: str | None) -> Path | None:
    """The CUDA toolkit of that major version, or None.

    A program on PATH may be a link or a script elsewhere, so toolkits are looked for by their folders first.

    Ends the program if there is none and FORCE_CUDA is 1.
    """
    if FORCE_CUDA == "0":
        return None
    reason = "PyTorch is built without CUDA"
    if version is not None:
        nvcc = shutil.which("nvcc")
        candidates = [
            os.environ.get("CUDA_HOME"),
            os.environ.get("CUDA_PATH"),
            f"/usr/local/cuda-{version}",
            "/usr/local/cuda",
            nvcc and str(Path(nvcc).resolve().parents[1]),
        ]
        reason = f"no toolkit of CUDA {version} was found (CUDA_HOME says where one is)"
        for folder in filter(None, candidates):
            program = Path(folder, "bin", "nvcc")
            if not program.is_file():
                continue
            output = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
            release = re.search(r"release (\d+)\.", output)
            if release and release[1] == version.split(".")[0]:
                return Path(folder)
            found = release[0] if release else "no nvcc"
            reason = f"PyTorch is built for CUDA {version}, and {program} is {found}"
    if FORCE_CUDA == "1":
        sys.exit(f"error: FORCE_CUDA=1, but {reason}")
    return None


def compiled_operator() -> dict:
    """The ext_modules of setup()."""
    if REQUIRE_OP == "0":
        return {}
    try:
        import torch
    except ImportError:
        if FORCE_CUDA == "1" or REQUIRE_OP == "1":
            raise
        warn(
            f"{NOT_COMPILED}: PyTorch cannot be imported; install it first, then this (--no-build-isolation)"
        )
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
        """Compiles as much as can be compiled, unless more is asked for."""

        def build_extensions(self) -> None:
            for cuda in (True, False) if toolkit else (False,):
                compiled = extension(cuda)
                compiled.__dict__.update({k: v for k, v in vars(self.extensions[0]).items() if k[0] == "_"})
                self.extensions[:] = [compiled]
                try:
                    return super().build_extensions()
                except Exception as error:  # whatever compilers can do wrong
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
    """Copies the configs and the shipped model into the package, where `seqformer.model_zoo` finds them.

    An editable installation finds them in the repository.
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
