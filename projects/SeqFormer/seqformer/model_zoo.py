"""Configs and trained models by name, with the functions of Detectron2's ``model_zoo``.

The name of a config is its path in ``configs/`` without the suffix, such as "ytvis19/seqformer_R50".
:data:`MODELS` lists those that have trained weights.

Examples:
    >>> from seqformer import model_zoo
    >>> model = model_zoo.get("released/seqformer_R50_joint", trained=True, device="cpu")
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from seqformer.errors import InputError

if TYPE_CHECKING:
    from detectron2.config import CfgNode
    from torch import nn

__all__ = [
    "MODELS",
    "SHIPPED_MODEL",
    "SHIPPED_NOTICE",
    "SUGGESTED_MODEL",
    "ZooModel",
    "find_name",
    "get",
    "get_checkpoint_url",
    "get_config",
    "get_config_file",
    "get_weights_file",
    "is_shipped_video",
    "list_configs",
    "root",
]

SHIPPED_MODEL = "pedestrians/seqformer_effnet_lite0"
SUGGESTED_MODEL = "released/seqformer_R50_joint"
SHIPPED_NOTICE = (
    "the shipped model knows only people seen by one street camera; expect wrong results on other videos. "
    "Released weights know 40 classes"
)

# Size in bytes and SHA-256 of demo/assets/street.mp4.
_SHIPPED_VIDEO = (1516841, "a6444bc0a756161e472e47a16c3c0d513356d381180531745f4873670d05fc72")
_AUTHORS_LICENSE = "MIT (the authors' repository; it does not mention the weights)"


@dataclass(frozen=True)
class ZooModel:
    """A trained model.

    Attributes:
        name: name of its config.
        description: architecture and training data.
        num_classes: number of classes.
        drive_id: id of its file on Google Drive; "" for shipped models.
        ap: AP on YouTube-VIS 2019 val in percent, the authors' figure; None if there is none.
        ap50: the same with an IoU threshold of 0.5.
        ap75: the same with an IoU threshold of 0.75.
        protocol: MODEL.SeqFormer.RESULT_PROTOCOL, how queries become results.
        license: licence of the weights.
        file: path of the weights in this repository; "" if they are not shipped.
    """

    name: str
    description: str
    num_classes: int
    drive_id: str = ""
    ap: float | None = None
    ap50: float | None = None
    ap75: float | None = None
    protocol: str = "original"
    license: str = _AUTHORS_LICENSE
    file: str = ""

    @property
    def address(self) -> str:
        """Where the weights are: a file for shipped models, otherwise an address on Google Drive."""
        return self.file or f"https://drive.google.com/uc?id={self.drive_id}"


_VIDEOS = "YouTube-VIS 2019"
_JOINT = "YouTube-VIS 2019 and COCO"
MODELS = {
    model.name: model
    for model in (
        ZooModel(
            SHIPPED_MODEL,
            "EfficientNet-Lite0, one street",
            1,
            protocol="queries",
            license="Apache-2.0",
            file="demo/assets/seqformer_effnet_lite0_pedestrians.safetensors",
        ),
        ZooModel(
            "photo_vis/seqformer_effnet_lite0",
            "EfficientNet-Lite0, PhotoVIS",
            9,
            protocol="queries",
            license="Apache-2.0; trained on photographs under GPL-2.0 and CC-BY-SA-4.0",
            file="demo/assets/seqformer_effnet_lite0_photo_vis.safetensors",
        ),
        ZooModel(
            "released/seqformer_R50",
            f"R50, {_VIDEOS}",
            40,
            "1fI8_1h_UDaZiwOupCOa4_tRPWa49uzDr",
            45.1,
            66.9,
            50.5,
        ),
        ZooModel(
            SUGGESTED_MODEL, f"R50, {_JOINT}", 40, "1ecKUrt9vNZscI4gaGCrvjRLu6rDM9wNX", 47.4, 69.8, 51.8
        ),
        ZooModel(
            "released/seqformer_R101_joint",
            f"R101, {_JOINT}",
            40,
            "1bUaMVz5zITzKzqnQC8aM9Ul0KrQ6sKgn",
            49.0,
            71.1,
            55.7,
        ),
        ZooModel(
            "released/seqformer_X101_joint",
            f"X101 32x8d, {_JOINT}",
            40,
            "1cB9cleZWmiited6JEYVZ9P9PyfyAzy_m",
            51.2,
            75.3,
            58.0,
        ),
        ZooModel(
            "released/seqformer_SwinL_joint",
            f"Swin-L, {_JOINT}",
            40,
            "1lENhEaMVhP9DylTcQFElPMVQOfKqmo0a",
            59.3,
            82.1,
            66.4,
        ),
        ZooModel("released/seqformer_R50_coco", "R50, COCO", 80, "1aWCeak2DY5arbUzYzbsAgrUfFnVkI8qi"),
        ZooModel("released/seqformer_R101_coco", "R101, COCO", 80, "1dxPfPQiTFoN-hfyGvVxpmF2cwFYjeJgI"),
        ZooModel("released/seqformer_X101_coco", "X101 32x8d, COCO", 80, "1F4Y6tGgbnK-gMG05EBlUzKDDuoX0xsw1"),
        ZooModel("released/seqformer_SwinL_coco", "Swin-L, COCO", 80, "19A4mgRqq6b-TTFN_ntYLQ3dQcaHYOD_p"),
    )
}


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


def get_config_file(name: str | Path) -> Path:
    """Returns the config file of a name, which may end in ".yaml".

    Raises:
        InputError: if there is no such config; the message lists all configs.
    """
    stem = _stem(name)
    if stem not in list_configs():
        raise InputError(f"no config '{stem}'; available: {', '.join(list_configs())}")
    return root() / "configs" / f"{stem}.yaml"


def find_name(config_file: str | Path) -> str | None:
    """Returns the name of the model in :data:`MODELS` whose config this file is, or None."""
    path, configs = Path(config_file).resolve(), root().resolve() / "configs"
    return next((name for name in MODELS if configs / f"{name}.yaml" == path), None)


def get_config(name: str | Path, trained: bool = False) -> CfgNode:
    """Returns the config of a name, as in Detectron2.

    Args:
        name: see :func:`get_config_file`.
        trained: set MODEL.WEIGHTS to the trained weights. Otherwise they stay what training starts from.

    Raises:
        InputError: if there is no such config, or no trained weights for it.
    """
    from seqformer.config import load_config

    cfg = load_config(get_config_file(name))
    if trained:
        cfg.MODEL.WEIGHTS = get_checkpoint_url(name)
    return cfg


def get_checkpoint_url(name: str | Path) -> str:
    """Returns the address of the trained weights of a config; for shipped models, their file.

    MODEL.WEIGHTS may be such an address; :func:`seqformer.checkpoints.local_file` downloads it.

    Raises:
        InputError: if there are none; the message lists the models that have weights.
    """
    get_config_file(name)
    model = MODELS.get(_stem(name))
    if model is None:
        raise InputError(f"no trained weights for '{_stem(name)}'; available: {', '.join(MODELS)}")
    return str(get_weights_file(model.name)) if model.file else model.address


def get(name: str | Path, trained: bool = False, device: str | None = None) -> nn.Module:
    """Returns the model of a config, in training mode, as in Detectron2.

    Args:
        name: see :func:`get_config_file`.
        trained: load the trained weights, which must fit exactly, and which are downloaded once. Otherwise
            load MODEL.WEIGHTS of the config, what training starts from.
        device: by default that of the config, or the CPU if there is no GPU.

    Raises:
        InputError: if there is no such config, or its weights cannot be loaded.
    """
    from detectron2.modeling import build_model

    from seqformer.checkpoints import SeqFormerCheckpointer

    cfg = get_config(name, trained)
    if device is not None:
        cfg.MODEL.DEVICE = device
    model = build_model(cfg)
    SeqFormerCheckpointer(model, strict=trained).load(cfg.MODEL.WEIGHTS)
    return model


def get_weights_file(name: str | Path) -> Path:
    """Returns the weights file of a shipped model.

    Raises:
        InputError: if ``name`` is another model, or the file is missing.
    """
    shipped = {model.name: model.file for model in MODELS.values() if model.file}
    if _stem(name) not in shipped:
        raise InputError(f"no weights are shipped for '{name}'; available: {', '.join(shipped)}")
    path = root() / shipped[_stem(name)]
    if not path.is_file():
        raise InputError(f"the weights of '{name}' are missing: no file '{path}'")
    return path


def is_shipped_video(path: str | Path) -> bool:
    """Whether a file is demo/assets/street.mp4, which the shipped model is for, or a copy of it."""
    path, (size, digest) = Path(path), _SHIPPED_VIDEO
    if not path.is_file() or path.stat().st_size != size:
        return False
    return hashlib.sha256(path.read_bytes()).hexdigest() == digest


def _stem(name: str | Path) -> str:
    return str(name).removesuffix(".yaml")
