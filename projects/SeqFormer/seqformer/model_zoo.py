"""The configs and weights shipped with SeqFormer, by name.

A name is the path of a config in ``configs/`` without its suffix, such as "ytvis19/seqformer_R50".
"""

from __future__ import annotations

from pathlib import Path

from seqformer.errors import InputError

__all__ = ["SHIPPED_MODEL", "get_config_file", "get_weights_file", "list_configs", "root"]

SHIPPED_MODEL = "pedestrians/seqformer_effnet_lite0"

_WEIGHTS = {SHIPPED_MODEL: "demo/assets/seqformer_effnet_lite0_pedestrians.safetensors"}


def root() -> Path:
    """Returns the folder that contains ``configs/``: inside an installed package, or the repository root."""
    package = Path(__file__).resolve().parent
    installed = package / "files"  # filled by setup.py when it builds a wheel
    return installed if installed.is_dir() else package.parents[2]


def list_configs() -> list[str]:
    """Returns the names of all configs, sorted."""
    configs = root() / "configs"
    names = (path.relative_to(configs).with_suffix("") for path in configs.rglob("*.yaml"))
    return sorted(path.as_posix() for path in names if not path.name.startswith("Base-"))


def get_config_file(name: str) -> Path:
    """Returns the config file of a name, which may end in ".yaml".

    Raises:
        InputError: if there is no such config; the message lists all configs.
    """
    stem = name.removesuffix(".yaml")
    if stem not in list_configs():
        raise InputError(f"no config '{name}'; available: {', '.join(list_configs())}")
    return root() / "configs" / f"{stem}.yaml"


def get_weights_file(name: str) -> Path:
    """Returns the weights file of a config.

    Raises:
        InputError: if no weights are shipped for it, or the file is missing.
    """
    get_config_file(name)
    weights = _WEIGHTS.get(name.removesuffix(".yaml"))
    if weights is None:
        raise InputError(f"no weights are shipped for '{name}'; available: {', '.join(_WEIGHTS)}")
    path = root() / weights
    if not path.is_file():
        raise InputError(f"the weights of '{name}' are missing: no file '{path}'")
    return path
