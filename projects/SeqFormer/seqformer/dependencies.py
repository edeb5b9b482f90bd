"""Detectron2 and timm: how to install Detectron2, and how to import both quickly and without warnings.

setup.cfg does not require it, since no distribution on PyPI is certain to be Detectron2.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

__all__ = ["HOW_TO_GET_DETECTRON2", "has_detectron2", "import_detectron2", "import_timm"]

_COMPILER = "torch._dynamo.utils"

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
    with warnings.catch_warnings(), _compiler_on_first_use():
        warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")
        importlib.import_module("detectron2.modeling")


def import_timm() -> ModuleType:
    """Imports timm.

    Raises:
        ImportError: if timm is not installed.
    """
    with _compiler_on_first_use():
        return importlib.import_module("timm")


@contextmanager
def _compiler_on_first_use() -> Iterator[None]:
    """Keeps imports from importing PyTorch's compiler, which takes as long as importing PyTorch itself.

    torchvision's RoIAlign imports a function of it, and a model of timm uses its decorator ``disable``, but
    SeqFormer uses neither of the two. Both import the compiler when they are called instead.
    """
    import torch.compiler

    disable = torch.compiler.disable
    late = None
    if _COMPILER not in sys.modules:
        late = sys.modules[_COMPILER] = _LateModule(_COMPILER)
        torch.compiler.disable = functools.partial(_decorated_on_first_use, disable)
    try:
        yield
    finally:
        torch.compiler.disable = disable
        if late is not None and sys.modules.get(_COMPILER) is late:
            del sys.modules[_COMPILER]


class _LateModule(ModuleType):
    """Stands for a module whose functions import it when they are called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args: Any, **kwargs: Any) -> Any:
            return getattr(importlib.import_module(self.__name__), name)(*args, **kwargs)

        return call


def _decorated_on_first_use(decorator: Callable[..., Any], function: Any = None, **kwargs: Any) -> Any:
    if function is None:  # used as @decorator(...)
        return functools.partial(_decorated_on_first_use, decorator, **kwargs)
    decorated = functools.cache(lambda: decorator(function, **kwargs))

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return decorated()(*args, **kwargs)

    return call
