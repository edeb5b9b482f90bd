"""From queries to scored instances and masks of the output size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from seqformer.formats.rle import encode_masks
from seqformer.inference.options import InferenceOptions
from seqformer.structures import RLE
from seqformer.tracking.overlap import soft_iou
from seqformer.tracking.tracklets import best_results

__all__ = [
    "encode_outputs",
    "output_masks",
    "scored_classes",
    "select_queries",
    "without_duplicates",
]


def select_queries(probabilities: Tensor, options: InferenceOptions) -> Tensor:
    """Indices of the queries to draw, best first, of class probabilities (Q, K)."""
    if options.top_pairs:
        pairs = probabilities.flatten()
        queries = pairs.topk(min(options.num_candidates, len(pairs))).indices // probabilities.shape[1]
        # The place of a query is that of its best pair; ``unique`` would sort by index.
        return queries.new_tensor(list(dict.fromkeys(queries.tolist())))
    return probabilities.amax(1).topk(min(options.num_candidates, len(probabilities))).indices


def without_duplicates(probabilities: Tensor, mask_logits: Tensor, iou_threshold: float, limit: int) -> Tensor:
    """Which instances of a clip are kept where several show the same object.

    Args:
        probabilities: (N, K), of the classes.
        mask_logits: (N, T, h, w).
        most: IoU in space and time above which the less probable instance is dropped.
        limit: instances to keep, the most probable ones.

    Returns:
        indices, ascending.
    """
    masks = (mask_logits > 0).float()
    overlaps = soft_iou(masks, masks) > iou_threshold
    kept: list[int] = []
    for i in probabilities.amax(1).argsort(descending=True, stable=True).tolist():
        if len(kept) < limit and not overlaps[i, kept].any():
            kept.append(i)
    return torch.tensor(sorted(kept), dtype=torch.int64, device=mask_logits.device)


def scored_classes(instances: dict[int, Tensor], options: InferenceOptions) -> list[tuple[int, int, float]]:
    """Results (instance, class, probability) of instances' class probabilities (K,); classes are 0-based."""
    results = []
    for i, classes in instances.items():
        scores = classes.tolist()
        labels = range(len(scores)) if options.multi_class else [scores.index(max(scores))]
        if options.top_pairs:
            results += [(i, label, score) for label, score in enumerate(scores)]
        else:
            results += [(i, label, scores[label]) for label in labels if scores[label] > options.threshold]
    return best_results(results, options.max_results)


def output_masks(logits: Tensor, image_size: tuple[int, int], output_size: tuple[int, int]) -> Tensor:
    """Masks at the output's size.

    Args:
        logits: (N, T, h, w), stride 4, padding included.
        image_size: unpadded height and width that the network saw.
        output_size: height and width wanted.

    Returns:
        (N, T, height, width) bool.
    """
    logits = F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)
    logits = logits[..., : image_size[0], : image_size[1]]
    return F.interpolate(logits, size=output_size, mode="nearest") > 0


def encode_outputs(
    logits: Tensor,
    image_size: tuple[int, int],
    output_size: tuple[int, int],
    present: Tensor | None = None,
) -> list[list[RLE | None]]:
    """Masks at the output's size as RLEs.

    Args:
        logits, image_size, output_size: as in :func:`output_masks`.
        present: (N, T) bool, false where a mask is empty whatever its logits.

    Returns:
        N instances times T masks; None where one is empty.
    """
    masks = output_masks(logits, image_size, output_size)
    if present is not None:
        masks &= present[..., None, None]
    return [encode_masks(mask) for mask in masks.cpu().numpy()]
