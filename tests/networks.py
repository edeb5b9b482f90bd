"""Networks and a training clip shared by tests."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Instances

from seqformer import SeqFormer, add_seqformer_config


def resnet_config(**seqformer: object) -> CfgNode:
    """SeqFormer with the ResNet-50 of released checkpoints; keywords set keys of MODEL.SeqFormer."""
    cfg = get_cfg()
    add_seqformer_config(cfg)
    cfg.INPUT.FORMAT = "RGB"
    cfg.MODEL.META_ARCHITECTURE = "SeqFormer"
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.PIXEL_MEAN = [123.675, 116.280, 103.530]
    cfg.MODEL.PIXEL_STD = [58.395, 57.120, 57.375]
    cfg.MODEL.BACKBONE.NAME = "build_resnet_backbone"
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    cfg.MODEL.SeqFormer.update(seqformer)
    return cfg


def tiny_config(**seqformer: object) -> CfgNode:
    """The small network of the reference figures."""
    cfg = resnet_config(
        HIDDEN_DIM=64, NHEADS=4, ENC_LAYERS=2, DEC_LAYERS=3, DIM_FEEDFORWARD=96, NUM_CLASSES=7
    )
    cfg.MODEL.SeqFormer.update(seqformer)
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 8
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 16
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 8
    return cfg


def tiny_model(**seqformer: object) -> SeqFormer:
    return build_model(tiny_config(**seqformer)).eval()


def two_moving_squares(size: int = 64, num_frames: int = 3, scale: int = 1) -> dict:
    """A bright square moves right, a dark one moves down and is gone in the last frame.

    ``scale`` multiplies the ``size`` of the picture and the squares. If it is even, edges of the squares are
    at multiples of 4 pixels, so that masks at stride 4 can be exact.
    """
    images, instances = [], []
    for t in range(num_frames):
        masks = torch.zeros(2, size, size, dtype=torch.bool)
        masks[0, 8:28, 4 + 10 * t : 24 + 10 * t] = True
        if t < num_frames - 1:
            masks[1, 30 + 6 * t : 52 + 6 * t, 36:58] = True
        masks = masks.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
        image = torch.full((3, *masks.shape[1:]), 120.0)
        image[:, masks[0]] = 250.0
        image[:, masks[1]] = 0.0
        frame = Instances(tuple(masks.shape[1:]))
        frame.gt_masks = BitMasks(masks)
        frame.gt_boxes = frame.gt_masks.get_bounding_boxes()
        frame.gt_classes = torch.tensor([0, 1])
        frame.gt_ids = torch.tensor([0, 1 if masks[1].any() else -1])
        images.append(image)
        instances.append(frame)
    return {"image": images, "instances": instances, "height": size * scale, "width": size * scale}


def equal_states(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    """Whether parameters and buffers of two models are bit-identical."""
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)
