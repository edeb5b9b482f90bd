"""formats/ reads and writes files where neither PyTorch nor Detectron2 is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import seqformer

# The package's own __init__ is left out: what it imports is tested elsewhere.
PROGRAM = """
import importlib, pkgutil, sys, types
blocked = ["torch", "torchvision", "detectron2", "cv2", "av", "scipy", "matplotlib", "tqdm"]
sys.modules.update(dict.fromkeys(blocked))
package = types.ModuleType("seqformer")
package.__path__ = [sys.argv[1]]
sys.modules["seqformer"] = package
import seqformer.formats
names = [module.name for module in pkgutil.iter_modules(seqformer.formats.__path__)]
for name in names:
    importlib.import_module("seqformer.formats." + name)
print(*names)
"""


def test_no_torch_and_no_detectron2() -> None:
    folder = Path(seqformer.__file__).parent
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    modules = {path.stem for path in (folder / "formats").glob("*.py")} - {"__init__"}
    assert set(done.stdout.split()) == modules >= {"ytvis", "results", "coco"}
