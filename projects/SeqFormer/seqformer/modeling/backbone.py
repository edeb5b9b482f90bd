"""More backbones for Detectron2: Swin with the published names, and any timm model."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone.swin import SwinTransformer
from safetensors import SafetensorError
from torch import Tensor, nn

from seqformer.dependencies import import_timm
from seqformer.errors import InputError

__all__ = ["FEATURES", "SwinBackbone", "TimmBackbone", "build_swin_backbone", "build_timm_backbone"]

FEATURES = ("res3", "res4", "res5")  # strides 8, 16, 32
_STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}


def _feature_info(model: Any) -> Any:
    """Returns names, strides and channels of a timm model's features."""
    return model.feature_info


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


class SwinBackbone(SwinTransformer):
    """Detectron2's Swin Transformer with outputs named res2 to res5, like those of other backbones.

    Parameters are named as in released Swin checkpoints. See SwinTransformer for the arguments.
    """

    def __init__(self, *, out_features: list[str], **kwargs: Any):
        names = list(_STRIDES)
        super().__init__(out_indices=sorted(names.index(name) for name in out_features), **kwargs)
        rename = {f"p{names.index(name)}": name for name in out_features}
        shapes = self.output_shape()
        self._rename = rename
        self._out_features = list(out_features)
        self._out_feature_channels = {rename[name]: shape.channels for name, shape in shapes.items()}
        self._out_feature_strides = {rename[name]: shape.stride for name, shape in shapes.items()}

    @property
    def size_divisibility(self) -> int:
        return 32

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) -> features by name, (N, C, H / stride, W / stride)."""
        return {self._rename[name]: feature for name, feature in super().forward(x).items()}


@BACKBONE_REGISTRY.register()
def build_swin_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> SwinBackbone:
    """Builds a Swin Transformer from ``cfg.MODEL.SWIN``."""
    swin = cfg.MODEL.SWIN
    return SwinBackbone(
        out_features=swin.OUT_FEATURES,
        pretrain_img_size=swin.PRETRAIN_IMG_SIZE,
        patch_size=swin.PATCH_SIZE,
        in_chans=input_shape.channels,
        embed_dim=swin.EMBED_DIM,
        depths=swin.DEPTHS,
        num_heads=swin.NUM_HEADS,
        window_size=swin.WINDOW_SIZE,
        mlp_ratio=swin.MLP_RATIO,
        qkv_bias=swin.QKV_BIAS,
        qk_scale=swin.QK_SCALE,
        drop_rate=swin.DROP_RATE,
        attn_drop_rate=swin.ATTN_DROP_RATE,
        drop_path_rate=swin.DROP_PATH_RATE,
        ape=swin.APE,
        patch_norm=swin.PATCH_NORM,
        frozen_stages=cfg.MODEL.BACKBONE.FREEZE_AT if cfg.MODEL.BACKBONE.FREEZE_AT > 0 else -1,
        use_checkpoint=swin.USE_CHECKPOINT,
    )


@BACKBONE_REGISTRY.register()
def D2SwinTransformer(cfg: CfgNode, input_shape: ShapeSpec) -> SwinBackbone:
    """The name of :func:`build_swin_backbone` in published configs."""
    return build_swin_backbone(cfg, input_shape)


class FrozenNormAct(FrozenBatchNorm2d):
    """A frozen batch norm with the activation that follows it in timm.

    Without gradients it needs one pass over the input; timm's own frozen batch norm always needs two.
    """

    def __init__(self, norm: nn.BatchNorm2d):
        super().__init__(norm.num_features, norm.eps)
        self.load_state_dict(norm.state_dict(), strict=False)
        self.drop = getattr(norm, "drop", nn.Identity())
        self.act = getattr(norm, "act", nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))


def _freeze_batch_norm(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenNormAct(child))
        else:
            _freeze_batch_norm(child)


class TimmBackbone(Backbone):
    """Any timm model with features of strides 8, 16 and 32. Batch norm is frozen.

    Convolutions use channels-last memory, which is faster on CPUs.

    Args:
        name: name of a timm model, such as "tf_efficientnet_lite0".
        weights: file with that model's weights (.pth or .safetensors), including the classifier, or "".
        pretrained: let timm download its own weights.
        out_features: names of the features to return; res2 to res5 have strides 4 to 32.
        freeze_at: 0 trains everything; k >= 1 freezes the stem and all stages up to stride 2^k (5: all).

    Raises:
        InputError: if timm is missing, the model is unknown or lacks a stride, or the weights do not fit.
    """

    def __init__(
        self,
        name: str,
        *,
        weights: str = "",
        pretrained: bool = False,
        out_features: list[str],
        freeze_at: int = 0,
        in_channels: int = 3,
    ):
        super().__init__()
        try:
            timm = import_timm()
        except ImportError as error:
            raise InputError("timm backbones need the package timm: pip install timm") from error
        if not timm.is_model(name):
            raise InputError(f"MODEL.TIMM.NAME: timm {timm.__version__} has no model '{name}'")
        if weights and not Path(weights).is_file():
            raise InputError(f"MODEL.TIMM.WEIGHTS: no file '{weights}'")
        try:
            reductions = _feature_info(timm.create_model(name, features_only=True)).reduction()
        except (RuntimeError, AttributeError) as error:
            raise InputError(f"MODEL.TIMM.NAME: '{name}' returns no features ({error})") from error
        missing = [f for f in out_features if _STRIDES[f] not in reductions]
        if missing:
            raise InputError(
                f"MODEL.TIMM.NAME: '{name}' has strides {reductions}, but not those of {', '.join(missing)}"
            )
        try:
            model = timm.create_model(
                name,
                pretrained=pretrained or bool(weights),
                pretrained_cfg_overlay={"file": weights} if weights else None,
                features_only=True,
                out_indices=[reductions.index(_STRIDES[f]) for f in out_features],
                in_chans=in_channels,
            )
        except (RuntimeError, OSError, SafetensorError, UnpicklingError) as error:
            source = f"'{weights}'" if weights else "pretrained weights"
            raise InputError(
                f"MODEL.TIMM: {source} cannot be loaded into '{name}': {_first_line(error)}"
            ) from error
        _freeze_batch_norm(model)
        self.model = model.to(memory_format=torch.channels_last)
        self._feature_info = _feature_info(model)
        self._channels_last = str(getattr(model, "output_fmt", "NCHW")).endswith("NHWC")
        self._freeze(freeze_at)
        self._out_features = list(out_features)
        self._out_feature_channels = dict(zip(out_features, self._feature_info.channels(), strict=True))
        self._out_feature_strides = {f: _STRIDES[f] for f in out_features}

    def _freeze(self, freeze_at: int) -> None:
        # Parameters are listed in the order in which the network uses them.
        modules = [i["module"] for i in self._feature_info.info if i["reduction"] <= 2**freeze_at]
        parameters = list(self.model.named_parameters())
        ends = [
            index
            for index, (name, _) in enumerate(parameters)
            for module in modules
            if name.replace("_", ".").startswith(module.replace("_", ".") + ".")
        ]
        for _, parameter in parameters[: max(ends, default=-1) + 1]:
            parameter.requires_grad_(False)

    @property
    def size_divisibility(self) -> int:
        return 32

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) -> features by name, (N, C, H / stride, W / stride)."""
        features = self.model(x.contiguous(memory_format=torch.channels_last))
        if self._channels_last:
            features = [feature.permute(0, 3, 1, 2).contiguous() for feature in features]
        return dict(zip(self._out_features, features, strict=True))


@BACKBONE_REGISTRY.register()
def build_timm_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> TimmBackbone:
    """Builds a timm model from ``cfg.MODEL.TIMM``."""
    return TimmBackbone(
        cfg.MODEL.TIMM.NAME,
        weights=cfg.MODEL.TIMM.WEIGHTS,
        pretrained=cfg.MODEL.TIMM.PRETRAINED,
        out_features=cfg.MODEL.TIMM.OUT_FEATURES,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        in_channels=input_shape.channels,
    )
