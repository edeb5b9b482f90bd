"""formats/ can be imported without PyTorch and Detectron2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import seqformer.formats

PROGRAM = """
import importlib, pkgutil, sys
blocked = ["torch", "torchvision", "detectron2", "cv2", "av", "scipy", "matplotlib", "tqdm"]
sys.modules.update(dict.fromkeys(blocked))
import seqformer.formats
for module in pkgutil.iter_modules(seqformer.formats.__path__):
    importlib.import_module("seqformer.formats." + module.name)
    print(module.name)
"""


def test_no_torch_and_no_detectron2() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    modules = {path.stem for path in Path(seqformer.formats.__file__).parent.glob("*.py")} - {"__init__"}
    assert set(done.stdout.split()) == modules >= {"ytvis", "results", "coco"}
