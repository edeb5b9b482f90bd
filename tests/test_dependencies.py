"""Importing the packages that SeqFormer needs: what they import in turn."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
import seqformer
from seqformer.dependencies import import_timm
timm = import_timm()
assert "torchvision.ops.roi_align" in sys.modules
print("torch._dynamo" in sys.modules)

import torch
roi_align = sys.modules["torchvision.ops.roi_align"]
print(roi_align.is_compile_supported("cpu"), "torch._dynamo" in sys.modules)

timm.layers.disable_compiler  # the decorator that was replaced
from timm.models.naflexvit import NaFlexRopeIterator
print(sum(hasattr(value, "__wrapped__") for value in vars(NaFlexRopeIterator).values()) > 0)
print(torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item())
"""


def test_the_compiler_is_imported_only_when_it_is_used() -> None:
    output = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM], capture_output=True, text=True, timeout=300
    )
    assert output.stdout.split() == ["False", "True", "True", "True", "2.0"], output.stderr


def test_a_program_that_uses_the_compiler_first_keeps_it() -> None:
    program = (
        "import torch._dynamo.utils as utils, sys; import seqformer; "
        "assert sys.modules['torch._dynamo.utils'] is utils; "
        "assert sys.modules['torchvision.ops.roi_align'].is_compile_supported is utils.is_compile_supported"
    )
    output = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True)
    assert output.returncode == 0, output.stderr
