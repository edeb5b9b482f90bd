"""SeqFormer as a Detectron2 meta-architecture: dicts of the dataset mapper in, losses or results out."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone
from torch import Tensor, nn

from seqformer.errors import InputError, name_flags
from seqformer.inference.options import InferenceOptions
from seqformer.inference.video import VideoInference
from seqformer.modeling.criterion import Criterion, SampledPoints
from seqformer.modeling.matcher import HungarianMatcher, Predictions, Targets
from seqformer.modeling.network import EncodedFrames, QueryNetwork, SeqFormerNetwork, Transformer
from seqformer.modeling.precision import check_precision, reduce_precision
from seqformer.tracking import MotionOptions

__all__ = ["SeqFormer"]

_MASK_STRIDE = 4

# Arguments and their keys in MODEL.SeqFormer.
_TRANSFORMER_KEYS = {
    "dim": "HIDDEN_DIM",
    "num_heads": "NHEADS",
    "feedforward_dim": "DIM_FEEDFORWARD",
    "dropout": "DROPOUT",
    "num_levels": "NUM_FEATURE_LEVELS",
    "encoder_layers": "ENC_LAYERS",
    "encoder_points": "ENC_N_POINTS",
    "decoder_layers": "DEC_LAYERS",
    "decoder_points": "DEC_N_POINTS",
    "recompute": "GRADIENT_CHECKPOINTING",
}
_QUERY_KEYS = {
    "num_queries": "NUM_OBJECT_QUERIES",
    "num_classes": "NUM_CLASSES",
    "query_groups": "QUERY_GROUPS",
}
_INFERENCE_KEYS = {
    "threshold": "APPLY_CLS_THRES",
    "multi_class": "MULTI_CLS_ON",
    "protocol": "RESULT_PROTOCOL",
    "keep_empty": "KEEP_EMPTY",
    "clip_matching": "CLIP_MATCHING",
    "auto_memory_gb": "AUTO_MEMORY_GB",
    "clip_length": "CLIP_LENGTH",
    "clip_stride": "CLIP_STRIDE",
    "max_live_instances": "MAX_LIVE_INSTANCES",
    "merge_on_cpu": "MERGE_ON_CPU",
    "duplicate_iou": "DUPLICATE_IOU",
}
_MOTION_KEYS = {
    "weight": "MOTION_WEIGHT",
    "memory": "MOTION_MEMORY",
    "least_similarity": "MOTION_LEAST_SIMILARITY",
    "least_probability": "MOTION_LEAST_PROBABILITY",
    "probability_weight": "MOTION_PROBABILITY_WEIGHT",
    "same_iou": "MOTION_SAME_IOU",
    "least_cells": "MOTION_LEAST_CELLS",
    "search_radius": "MOTION_SEARCH_RADIUS",
    "window": "MOTION_WINDOW",
}
_POINT_KEYS = {
    "num_points": "TRAIN_NUM_POINTS",
    "oversample_ratio": "OVERSAMPLE_RATIO",
    "importance_sample_ratio": "IMPORTANCE_SAMPLE_RATIO",
}
_PRECISION_KEY = {"precision": "MODEL.SeqFormer.PRECISION"}


def _values(config: CfgNode, keys: dict[str, str]) -> dict[str, Any]:
    return {argument: config[key] for argument, key in keys.items()}


@META_ARCH_REGISTRY.register()
class SeqFormer(nn.Module):
    """Segments, classifies and tracks all instances of a video (Wu et al., ECCV 2022).

    Args:
        network: the network. Its parameters keep their published names under ``detr``.
        criterion: matching and losses.
        options: how a video is cut into clips, and which queries become results.
        precision: how :meth:`reduce_precision` makes the network compute.
        deep_supervision: compute losses on every decoder layer instead of only the last.
    """

    @configurable
    def __init__(
        self,
        network: SeqFormerNetwork,
        *,
        criterion: Criterion,
        options: InferenceOptions,
        precision: str = "fp32",
        deep_supervision: bool = True,
    ):
        super().__init__()
        self.precision = precision
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
        keys = _TRANSFORMER_KEYS | _QUERY_KEYS | _INFERENCE_KEYS | _MOTION_KEYS | _POINT_KEYS
        with name_flags(_PRECISION_KEY):
            check_precision(c.PRECISION)
        with name_flags({argument: f"MODEL.SeqFormer.{key}" for argument, key in keys.items()}):
            motion = MotionOptions(**_values(c, _MOTION_KEYS))
            options = InferenceOptions(**_values(c, _INFERENCE_KEYS), motion=motion)
            transformer = Transformer(**_values(c, _TRANSFORMER_KEYS))
            queries = QueryNetwork(build_backbone(cfg), transformer, **_values(c, _QUERY_KEYS))
            points = SampledPoints(**_values(c, _POINT_KEYS)) if c.TRAIN_NUM_POINTS else None
        costs = (c.SET_COST_CLASS, c.SET_COST_BOX, c.SET_COST_GIOU)
        matcher = HungarianMatcher(*costs, alpha=c.FOCAL_ALPHA, groups=c.QUERY_GROUPS)
        padding = {"size_divisibility": 1} if options.original else {}
        weights = {
            "loss_ce": c.CLASS_WEIGHT,
            "loss_bbox": c.L1_WEIGHT,
            "loss_giou": c.GIOU_WEIGHT,
            "loss_mask": c.MASK_WEIGHT,
            "loss_dice": c.DICE_WEIGHT,
        }
        return {
            "network": SeqFormerNetwork(queries, cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD, **padding),
            "criterion": Criterion(matcher, weights, alpha=c.FOCAL_ALPHA, points=points),
            "options": options,
            "precision": c.PRECISION,
            "deep_supervision": c.DEEP_SUPERVISION,
        }

    @property
    def device(self) -> torch.device:
        return self.network.device

    @property
    def network(self) -> SeqFormerNetwork:
        """The network. It is stored as ``detr``, its name in checkpoints."""
        return self.detr

    def reduce_precision(self) -> None:
        """Makes the network compute in its precision, in place, when it has its final weights.

        It can then neither be trained nor saved; see :func:`seqformer.modeling.reduce_precision`.

        Raises:
            InputError: if the device cannot compute in this precision.
        """
        with name_flags(_PRECISION_KEY):
            reduce_precision(self.network, self.precision)

    def encode(self, images: list[Tensor]) -> EncodedFrames:
        """Normalises, pads and encodes frames, each (3, h, w) with values 0 to 255."""
        return self.network.encode(images)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Returns losses in training mode, and the results of one video otherwise.

        Args:
            batched_inputs: dicts with

                * image: list of T tensors (3, h, w), values 0 to 255, channels as in INPUT.FORMAT;
                * instances (training): list of T Instances with gt_boxes (absolute xyxy), gt_classes,
                  gt_masks and gt_ids (-1: not visible in that frame), the same instances in every frame;
                * height, width (inference): size of the output masks.

        Returns:
            in training, weighted losses by name. Otherwise the results of the video: image_size (h, w),
            pred_scores (list of float), pred_labels (list of int, 0-based), pred_masks (list of (T, h, w)
            bool), and video_result, the same as a :class:`seqformer.structures.VideoResult` with RLE masks.
        """
        if self.training:
            return self.forward_training(batched_inputs)
        return self.forward_inference(batched_inputs)

    def forward_training(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Returns weighted losses by name. Names of earlier decoder layers end in the layer's index."""
        num_frames = len(batched_inputs[0]["image"])
        frames = self.encode([image for video in batched_inputs for image in video["image"]])
        stride8 = frames.mask_features.shape[-2:]
        mask_size = (2 * stride8[0], 2 * stride8[1])
        targets = Targets.cat([_targets(video, mask_size) for video in batched_inputs]).to(self.device)
        outputs = self.network.decode(frames, num_frames)
        layers = list(range(len(outputs)) if self.deep_supervision else [len(outputs) - 1])
        outputs = [outputs[layer] for layer in layers]
        predictions = Predictions(
            logits=torch.stack(
                [self.network.classify(layer, output) for layer, output in zip(layers, outputs, strict=True)]
            ),
            boxes=torch.stack([output.boxes for output in outputs]),
        )
        matches = self.criterion.matcher(predictions, targets)

        # The mask head runs once, on the matched queries of all layers and videos.
        queries = torch.stack([output.instance_queries for output in outputs])
        references = torch.stack([output.reference[..., :2] for output in outputs])
        masks = self.network.masks(
            frames,
            queries[matches.layers, matches.videos, matches.queries],
            references[matches.layers, matches.videos, :, matches.queries].transpose(0, 1),  # T, M, 2
            matches.videos,
        )

        normaliser = self.criterion.normaliser(targets)
        losses = self.criterion.losses(predictions, matches, masks, targets, normaliser)
        suffixes = [f"_{layer}" for layer in layers[:-1]] + [""]
        return {
            name + suffix: loss
            for name, values in losses.items()
            for suffix, loss in zip(suffixes, values.unbind(), strict=True)
        }

    @torch.no_grad()
    def forward_inference(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Returns the results of one video."""
        if len(batched_inputs) != 1:
            raise ValueError(f"inference runs on one video at a time, not on {len(batched_inputs)}")
        video = batched_inputs[0]
        images = video["image"]
        image_size = tuple(images[0].shape[-2:])
        output_size = (video.get("height", image_size[0]), video.get("width", image_size[1]))
        inference = VideoInference(self.network, self.options, len(images))
        tracklets = self.options.tracklets()
        for final in inference.run(images):
            tracklets.add(inference.frame_results(final, image_size, output_size))
        result = tracklets.result(output_size)
        masks: dict[int, Tensor] = {}
        for tracklet in result.tracklets:
            if tracklet.instance_id not in masks:
                frames = [torch.from_numpy(tracklet.masks(t)) for t in range(result.length)]
                masks[tracklet.instance_id] = torch.stack(frames)
        return {
            "image_size": output_size,
            "pred_scores": [tracklet.score for tracklet in result.tracklets],
            "pred_labels": [tracklet.label for tracklet in result.tracklets],
            "pred_masks": [masks[tracklet.instance_id] for tracklet in result.tracklets],
            "video_result": result,
        }


def _targets(video: dict[str, Any], mask_size: tuple[int, int]) -> Targets:
    """Returns the ground truth of one dict of the dataset mapper, on the device of its instances."""
    instances = video["instances"]
    visible = torch.stack([frame.gt_ids >= 0 for frame in instances], dim=1)  # G, T
    height, width = video["image"][0].shape[-2:]
    boxes = torch.stack([frame.gt_boxes.tensor for frame in instances], dim=1)
    x0, y0, x1, y1 = (boxes / boxes.new_tensor([width, height, width, height])).unbind(-1)
    boxes = torch.stack(((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0), dim=-1)
    half = _MASK_STRIDE // 2
    masks = torch.stack(
        [frame.gt_masks.tensor[:, half::_MASK_STRIDE, half::_MASK_STRIDE] for frame in instances], dim=1
    )
    pad = (0, mask_size[1] - masks.shape[-1], 0, mask_size[0] - masks.shape[-2])
    return Targets(
        classes=instances[0].gt_classes,
        boxes=boxes * visible.unsqueeze(-1),
        masks=F.pad((masks & visible[..., None, None]).float(), pad),
        counts=[len(visible)],
    )
