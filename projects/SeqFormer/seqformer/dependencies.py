"""Detectron2: whether it is installed, how to install it, and how to import it without warnings.

setup.cfg does not require it, since no distribution on PyPI is certain to be Detectron2.
"""

from __future__ import annotations

import importlib.util
import warnings

__all__ = ["HOW_TO_GET_DETECTRON2", "has_detectron2", "import_detectron2"]

HOW_TO_GET_DETECTRON2 = """\
Detectron2 is not installed. Install it in one of two ways, into an environment that has PyTorch:
  1. as a wheel, without compiling:
     pip install --no-deps --only-binary=:all: --python-version 3.10 --implementation cp --abi none \\
         --platform any --target "$(python -c 'import site; print(site.getsitepackages()[0])')" \\
         sal-detectron2==0.7.2
  2. from its own repository, with a C++ compiler:
     pip install --no-build-isolation 'git+https://github.com/facebookresearch/detectron2.git'"""


def has_detectron2() -> bool:
    """Whether Detectron2 is installed. A folder with that name, such as a clone of it, does not count."""
    spec = importlib.util.find_spec("detectron2")
    return spec is not None and spec.origin is not None


def import_detectron2() -> None:
    """Imports Detectron2's models without their deprecation warnings.

    Detectron2 and fvcore call ``torch.jit.script``, which newer PyTorch deprecates, when they are imported.
    Users can do nothing about that, so the warning is hidden, for this import only.

    Raises:
        ModuleNotFoundError: if Detectron2 is not installed; the message says how to install it.
    """
    if not has_detectron2():
        raise ModuleNotFoundError(HOW_TO_GET_DETECTRON2, name="detectron2")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")
        importlib.import_module("detectron2.modeling")
