"""The compiled operator; everything else about the package stands in setup.cfg.

It needs a C++ compiler. Without one, or where compiling fails, the package works with the operator in plain
PyTorch. FORCE_CUDA=1 compiles it for CUDA even where no device is visible, or fails; SEQFORMER_REQUIRE_OP=1
fails where it cannot be compiled for CPUs.
"""

import os
import sys
from pathlib import Path

from setuptools import setup

SOURCES = Path("projects/SeqFormer/seqformer/ops/csrc")
FORCE_CUDA = os.environ.get("FORCE_CUDA") == "1"
REQUIRED = FORCE_CUDA or os.environ.get("SEQFORMER_REQUIRE_OP") == "1"


def compiled_operator() -> dict:
    """The ext_modules of setup(), or none without PyTorch."""
    try:
        from torch.utils.cpp_extension import BuildExtension, CppExtension
    except ImportError:
        if REQUIRED:
            raise
        warn("PyTorch cannot be imported; install it first and build with pip's --no-build-isolation")
        return {}

    class OptionalBuild(BuildExtension):
        """Goes on without the operator if it cannot be compiled."""

        def build_extensions(self) -> None:
            try:
                super().build_extensions()
            except Exception as error:  # whatever a compiler can do wrong
                if REQUIRED:
                    raise
                warn(str(error).strip().split("\n")[-1])
                self.extensions = []

    flags = ["-O3", "-std=c++20", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"]
    openmp = ["-fopenmp"] if sys.platform == "linux" else []
    operator = CppExtension(
        "seqformer._C",
        [str(path) for path in sorted(SOURCES.rglob("*.cpp"))],
        extra_compile_args={"cxx": flags + openmp},
        extra_link_args=openmp,
    )
    return {"ext_modules": [operator], "cmdclass": {"build_ext": OptionalBuild}}


def warn(reason: str) -> None:
    print(
        f"warning: the operator was not compiled, the slower one in plain PyTorch is used: {reason}",
        file=sys.stderr,
    )


setup(**compiled_operator())
