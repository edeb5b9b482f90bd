"""Models and configs that come with SeqFormer, by name.

A name is the path of a config below ``configs/`` without its suffix, such as "ytvis19/seqformer_R50".
"""

from __future__ import annotations

from pathlib import Path

from seqformer.errors import InputError

__all__ = ["SHIPPED_MODEL", "get_config_file", "get_weights_file", "list_configs", "root"]

SHIPPED_MODEL = "pedestrians/seqformer_effnet_lite0"

_WEIGHTS = {SHIPPED_MODEL: "demo/assets/seqformer_effnet_lite0_pedestrians.safetensors"}


def root() -> Path:
    """The folder that holds ``configs/``: a copy inside an installed package, or the repository's root."""
    package = Path(__file__).resolve().parent
    installed = package / "files"  # setup.py fills it when it builds a wheel
    return installed if installed.is_dir() else package.parents[2]


def list_configs() -> list[str]:
    """Names of all configs, sorted."""
    configs = root() / "configs"
    found = (path.relative_to(configs).with_suffix("") for path in configs.rglob("*.yaml"))
    return sorted(path.as_posix() for path in found if not path.name.startswith("Base-"))


def get_config_file(name: str) -> Path:
    """The config file of a name; "ytvis19/seqformer_R50.yaml" is accepted as well.

    Raises:
        InputError: if there is no such config; the message lists those that exist.
    """
    stem = name.removesuffix(".yaml")
    if stem not in list_configs():
        raise InputError(f"no config '{name}'; known are {', '.join(list_configs())}")
    return root() / "configs" / f"{stem}.yaml"


def get_weights_file(name: str) -> Path:
    """The weights that come with a config.

    Raises:
        InputError: if none come with it, or the file is missing.
    """
    get_config_file(name)
    weights = _WEIGHTS.get(name.removesuffix(".yaml"))
    if weights is None:
        raise InputError(f"no weights come with '{name}'; weights come with {', '.join(_WEIGHTS)}")
    path = root() / weights
    if not path.is_file():
        raise InputError(f"the weights of '{name}' are missing: no file '{path}'")
    return path
