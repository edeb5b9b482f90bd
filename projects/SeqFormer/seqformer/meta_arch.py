"""SeqFormer as a Detectron2 meta-architecture: from the dataset mapper's dicts to losses or results."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone
from torch import Tensor, nn

from seqformer.errors import InputError
from seqformer.inference.postprocess import InferenceOptions, best_results, output_masks
from seqformer.inference.video import VideoInference
from seqformer.modeling.backbone import FEATURES
from seqformer.modeling.criterion import Criterion, LayerPrediction
from seqformer.modeling.matcher import HungarianMatcher, VideoTargets
from seqformer.modeling.network import EncodedFrames, QueryNetwork, SeqFormerNetwork, Transformer

__all__ = ["SeqFormer"]

_MASK_STRIDE = 4
_PROTOCOLS = ("queries", "pairs")


@META_ARCH_REGISTRY.register()
class SeqFormer(nn.Module):
    """Segments, classifies and tracks all instances of a video (Wu et al., ECCV 2022).

    Args:
        network: the network, whose parameters carry their published names below ``detr``.
        criterion: matching and losses.
        options: how results are made of queries.
        deep_supervision: losses on every decoder layer, not the last alone.
    """

    @configurable
    def __init__(
        self,
        network: SeqFormerNetwork,
        *,
        criterion: Criterion,
        options: InferenceOptions,
        deep_supervision: bool = True,
    ):
        super().__init__()
        self.detr = network
        self.criterion = criterion
        self.options = options
        self.deep_supervision = deep_supervision

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        c = cfg.MODEL.SeqFormer
        if c.MASK_STRIDE != _MASK_STRIDE or c.MATCH_STRIDE != _MASK_STRIDE:
            raise InputError(
                f"MODEL.SeqFormer.MASK_STRIDE and MATCH_STRIDE must be {_MASK_STRIDE}, the masks' stride"
            )
        if c.HIDDEN_DIM % 32 or c.HIDDEN_DIM % c.NHEADS:
            raise InputError(
                f"MODEL.SeqFormer.HIDDEN_DIM {c.HIDDEN_DIM} must be a multiple of 32 and of NHEADS"
            )
        if len(FEATURES) > c.NUM_FEATURE_LEVELS:
            raise InputError(f"MODEL.SeqFormer.NUM_FEATURE_LEVELS must be at least {len(FEATURES)}")
        if c.RESULT_PROTOCOL not in _PROTOCOLS:
            raise InputError(f"MODEL.SeqFormer.RESULT_PROTOCOL must be one of {', '.join(_PROTOCOLS)}")
        if c.QUERY_GROUPS < 1:
            raise InputError("MODEL.SeqFormer.QUERY_GROUPS must be at least 1")
        if c.CLIP_LENGTH < 1 or c.CLIP_STRIDE < 1:
            raise InputError("MODEL.SeqFormer.CLIP_LENGTH and CLIP_STRIDE must be at least 1")
        if not 0 < c.DUPLICATE_IOU <= 1:
            raise InputError("MODEL.SeqFormer.DUPLICATE_IOU must be above 0 and at most 1")
        if not 0 <= c.MOTION_WEIGHT < 1 or c.MOTION_MEMORY < 0:
            raise InputError("MODEL.SeqFormer.MOTION_WEIGHT must be in [0, 1), MOTION_MEMORY not negative")
        if c.MOTION_WEIGHT and c.CLIP_LENGTH < 2:
            raise InputError("MODEL.SeqFormer.MOTION_WEIGHT needs a CLIP_LENGTH of at least 2")
        if c.AUTO_MEMORY_GB < 0 or c.MAX_LIVE_INSTANCES < 0:
            raise InputError("MODEL.SeqFormer.AUTO_MEMORY_GB and MAX_LIVE_INSTANCES must not be negative")
        transformer = Transformer(
            dim=c.HIDDEN_DIM,
            num_heads=c.NHEADS,
            feedforward_dim=c.DIM_FEEDFORWARD,
            dropout=c.DROPOUT,
            num_levels=c.NUM_FEATURE_LEVELS,
            encoder_layers=c.ENC_LAYERS,
            encoder_points=c.ENC_N_POINTS,
            decoder_layers=c.DEC_LAYERS,
            decoder_points=c.DEC_N_POINTS,
            recompute=c.GRADIENT_CHECKPOINTING,
        )
        queries = QueryNetwork(
            build_backbone(cfg), transformer, c.NUM_OBJECT_QUERIES, c.NUM_CLASSES, c.QUERY_GROUPS
        )
        matcher = HungarianMatcher(c.SET_COST_CLASS, c.SET_COST_BOX, c.SET_COST_GIOU, alpha=c.FOCAL_ALPHA)
        weights = {
            "loss_ce": c.CLASS_WEIGHT,
            "loss_bbox": c.L1_WEIGHT,
            "loss_giou": c.GIOU_WEIGHT,
            "loss_mask": c.MASK_WEIGHT,
            "loss_dice": c.DICE_WEIGHT,
        }
        return {
            "network": SeqFormerNetwork(queries, cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD),
            "criterion": Criterion(matcher, weights, alpha=c.FOCAL_ALPHA, groups=c.QUERY_GROUPS),
            "options": InferenceOptions(
                threshold=c.APPLY_CLS_THRES,
                multi_class=c.MULTI_CLS_ON,
                top_pairs=c.RESULT_PROTOCOL == "pairs",
                clip_matching=c.CLIP_MATCHING,
                auto_memory_gb=c.AUTO_MEMORY_GB,
                clip_length=c.CLIP_LENGTH,
                clip_stride=c.CLIP_STRIDE,
                max_live_instances=c.MAX_LIVE_INSTANCES,
                merge_on_cpu=c.MERGE_ON_CPU,
                duplicate_iou=c.DUPLICATE_IOU,
                motion_weight=c.MOTION_WEIGHT,
                motion_memory=c.MOTION_MEMORY,
            ),
            "deep_supervision": c.DEEP_SUPERVISION,
        }

    @property
    def device(self) -> torch.device:
        return self.network.device

    @property
    def network(self) -> SeqFormerNetwork:
        """The network under the name that code reads; checkpoints call it ``detr``."""
        return self.detr

    def encode(self, images: list[Tensor]) -> EncodedFrames:
        """Normalises, pads and encodes frames, (3, h, w) each, values 0 to 255."""
        return self.network.encode(images)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Losses in training, results of one video otherwise.

        Args:
            batched_inputs: dicts with

                * image: list of T tensors (3, h, w), values 0 to 255, channels as in INPUT.FORMAT;
                * instances (training): list of T Instances with gt_boxes (absolute xyxy), gt_classes,
                  gt_masks and gt_ids (-1: not visible in that frame), the same instances in every frame;
                * height, width (inference): the size of the masks wanted.

        Returns:
            in training, weighted losses by name. Otherwise of the one video: image_size (h, w), pred_scores
            (list of float), pred_labels (list of int, 0-based) and pred_masks (list of (T, h, w) bool).
        """
        if self.training:
            return self.forward_training(batched_inputs)
        return self.forward_inference(batched_inputs)

    def forward_training(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Weighted losses; those of earlier decoder layers end in their number."""
        num_frames = len(batched_inputs[0]["image"])
        frames = self.encode([image for video in batched_inputs for image in video["image"]])
        stride8 = frames.mask_features.shape[-2:]
        targets = [self._targets(video, (2 * stride8[0], 2 * stride8[1])) for video in batched_inputs]
        outputs = self.network.decode(frames, num_frames)
        layers = list(range(len(outputs)) if self.deep_supervision else [len(outputs) - 1])
        predictions = [
            LayerPrediction(self.network.classify(layer, outputs[layer]), outputs[layer].boxes)
            for layer in layers
        ]
        matches = [self.criterion.match(prediction, targets) for prediction in predictions]

        # All layers' matched queries of a video are drawn together; then masks[video][layer].
        masks = []
        for video in range(len(batched_inputs)):
            chosen = [(outputs[layer], match[video][0]) for layer, match in zip(layers, matches, strict=True)]
            drawn = self.network.masks(
                frames[video * num_frames : (video + 1) * num_frames],
                torch.cat([output.instance_queries[video, queries] for output, queries in chosen]),
                torch.cat([output.reference[video, :, queries, :2] for output, queries in chosen], dim=1),
            )
            masks.append(drawn.split([len(queries) for _, queries in chosen]))

        normaliser = self.criterion.normaliser(targets)
        losses = {}
        for index, layer in enumerate(layers):
            layer_losses = self.criterion.losses(
                predictions[index], matches[index], [m[index] for m in masks], targets, normaliser
            )
            suffix = "" if layer == len(outputs) - 1 else f"_{layer}"
            losses.update({name + suffix: loss for name, loss in layer_losses.items()})
        return losses

    def _targets(self, video: dict[str, Any], mask_size: tuple[int, int]) -> VideoTargets:
        instances = [frame.to(self.device) for frame in video["instances"]]
        visible = torch.stack([frame.gt_ids >= 0 for frame in instances])  # T, G
        height, width = video["image"][0].shape[-2:]
        scale = torch.tensor([width, height, width, height], device=self.device, dtype=torch.float32)
        x0, y0, x1, y1 = torch.stack([frame.gt_boxes.tensor / scale for frame in instances]).unbind(-1)
        boxes = torch.stack(((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0), dim=-1)
        half = _MASK_STRIDE // 2
        masks = torch.stack(
            [frame.gt_masks.tensor[:, half::_MASK_STRIDE, half::_MASK_STRIDE] for frame in instances], dim=1
        )
        pad = (0, mask_size[1] - masks.shape[-1], 0, mask_size[0] - masks.shape[-2])
        return VideoTargets(
            classes=instances[0].gt_classes,
            boxes=boxes * visible.unsqueeze(-1),
            masks=F.pad((masks & visible.T[..., None, None]).float(), pad),
        )

    @torch.no_grad()
    def forward_inference(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Results of one video."""
        if len(batched_inputs) != 1:
            raise ValueError(f"inference takes one video at a time, not {len(batched_inputs)}")
        video = batched_inputs[0]
        images = video["image"]
        image_size = tuple(images[0].shape[-2:])
        output_size = (video.get("height", image_size[0]), video.get("width", image_size[1]))
        masks: dict[int, Tensor] = {}
        inference = VideoInference(self.network, self.options, len(images))
        results: list[tuple[int, int, float]] = []
        for final in inference.run(images):
            drawn = output_masks(final.mask_logits, image_size, output_size)
            drawn &= final.present[..., None, None]
            for instance, mask in zip(final.ids, drawn.cpu(), strict=True):
                if instance not in masks:
                    masks[instance] = torch.zeros(len(images), *output_size, dtype=torch.bool)
                masks[instance][final.start : final.start + mask.shape[0]] = mask
            for ended in inference.pop_retired():
                results += [(ended.instance_id, label, score) for label, score in ended.scores]
                if not ended.scores:
                    del masks[ended.instance_id]
        results = best_results(results, self.options)
        return {
            "image_size": output_size,
            "pred_scores": [score for _, _, score in results],
            "pred_labels": [label for _, label, _ in results],
            "pred_masks": [masks[instance] for instance, _, _ in results],
        }
