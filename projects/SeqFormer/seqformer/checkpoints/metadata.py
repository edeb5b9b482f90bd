"""A model in one file: its config, class names, preprocessing and licence, in the metadata of safetensors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode

from seqformer.checkpoints.files import read_metadata
from seqformer.config import config_from_values
from seqformer.errors import InputError

__all__ = ["model_metadata", "read_config"]

# What a weights file may set: the network, its input and its results. Nothing else, since the file may come
# from anybody: no paths, no downloads, no device.
_KEYS = {
    "MODEL": {
        "META_ARCHITECTURE",
        "PIXEL_MEAN",
        "PIXEL_STD",
        "BACKBONE",
        "RESNETS",
        "SWIN",
        "TIMM",
        "SeqFormer",
    },
    "INPUT": {"FORMAT", "MIN_SIZE_TEST", "MAX_SIZE_TEST"},
}
_REFUSED = {"PRETRAINED", "WEIGHTS"}  # of MODEL.TIMM
_MAX_LENGTH = 100_000  # characters


def model_metadata(
    class_names: Sequence[str],
    cfg: CfgNode | None = None,
    *,
    category_ids: Sequence[int] = (),
    license: str = "",
) -> dict[str, str]:
    """Returns text fields for a safetensors file that describe a model.

    Args:
        class_names: class names by label.
        cfg: the model's config; its keys that inference needs are written as YAML.
        category_ids: the classes' ids in results, by label; by default they count from 1.
        license: licence of the weights, such as "Apache-2.0".

    Returns:
        "thing_classes" (JSON), and if given "category_ids" (JSON), "license", "config" (YAML) and
        "preprocessing" (JSON), a summary of the config for programs without Detectron2.

    Raises:
        InputError: if the config has another number of classes.
    """
    fields = {"thing_classes": json.dumps(list(class_names))}
    if category_ids:
        fields["category_ids"] = json.dumps(list(category_ids))
    if license:
        fields["license"] = license
    if cfg is None:
        return fields
    count = cfg.MODEL.SeqFormer.NUM_CLASSES
    if count != len(class_names):
        raise InputError(f"the config has {count} classes, but there are {len(class_names)} class names")
    everything = yaml.safe_load(cfg.dump())
    values = {section: {key: everything[section][key] for key in sorted(_KEYS[section])} for section in _KEYS}
    for key in _REFUSED:
        del values["MODEL"]["TIMM"][key]
    model, size = values["MODEL"], values["INPUT"]
    original = model["SeqFormer"]["RESULT_PROTOCOL"] == "original"
    fields["config"] = yaml.safe_dump(values)
    fields["preprocessing"] = json.dumps(
        {
            "channels": size["FORMAT"],
            "short_side": size["MIN_SIZE_TEST"],
            "long_side_at_most": None if original else size["MAX_SIZE_TEST"],
            "padded_to_multiple_of": 1 if original else 32,
            "mean": model["PIXEL_MEAN"],
            "std": model["PIXEL_STD"],
        }
    )
    return fields


def read_config(path: str | Path, opts: Sequence[str] = ()) -> CfgNode | None:
    """Returns the config in a weights file; None if it has none.

    Args:
        path: a weights file.
        opts: config overrides, ``KEY VALUE KEY VALUE ...``.

    Raises:
        InputError: if the file cannot be read, or its config is invalid or sets keys that do not describe the
            model.
    """
    text = read_metadata(path).get("config")
    if text is None:
        return None
    source = f"config in '{path}'"
    return config_from_values(_parse(text, source), source, opts)


def _parse(text: str, source: str) -> dict[str, dict[str, Any]]:
    if len(text) > _MAX_LENGTH:
        raise InputError(f"{source}: longer than {_MAX_LENGTH} characters")
    try:
        # A few nested aliases can stand for gigabytes.
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise InputError(f"{source}: aliases are not allowed")
        values = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{source}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict) or not all(isinstance(section, dict) for section in values.values()):
        raise InputError(f"{source}: not a config")
    for name, section in values.items():
        for key in section:
            if key not in _KEYS.get(name, ()):
                raise InputError(f"{source}: a weights file cannot set {name}.{key}")
    timm = values.get("MODEL", {}).get("TIMM", {})
    for key in sorted(_REFUSED.intersection(timm if isinstance(timm, dict) else ())):
        raise InputError(f"{source}: a weights file cannot set MODEL.TIMM.{key}")
    return values
