"""Selects candidates, scores instances, and resizes their masks."""

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
    """Returns the indices of candidate queries, best first, from class probabilities (Q, K)."""
    if options.top_pairs:
        pairs = probabilities.flatten()
        queries = pairs.topk(min(options.num_candidates, len(pairs))).indices // probabilities.shape[1]
        # Queries are ranked by their best pair. torch.unique would sort them by index.
        return queries.new_tensor(list(dict.fromkeys(queries.tolist())))
    return probabilities.amax(1).topk(min(options.num_candidates, len(probabilities))).indices


def without_duplicates(
    probabilities: Tensor, mask_logits: Tensor, iou_threshold: float, limit: int
) -> Tensor:
    """Removes duplicates, instances of a clip that show the same object.

    Args:
        probabilities: (N, K) class probabilities.
        mask_logits: (N, T, h, w).
        iou_threshold: space-time IoU above which the less probable instance is dropped.
        limit: maximum number of instances to keep; the most probable ones are kept.

    Returns:
        Indices of the kept instances, ascending.
    """
    masks = (mask_logits > 0).float()
    overlaps = soft_iou(masks, masks) > iou_threshold
    kept: list[int] = []
    for i in probabilities.amax(1).argsort(descending=True, stable=True).tolist():
        if len(kept) < limit and not overlaps[i, kept].any():
            kept.append(i)
    return torch.tensor(sorted(kept), dtype=torch.int64, device=mask_logits.device)


def scored_classes(instances: dict[int, Tensor], options: InferenceOptions) -> list[tuple[int, int, float]]:
    """Returns results (instance, 0-based class, probability) from class probabilities (K,) by instance."""
    results = []
    for i, classes in instances.items():
        scores = classes.tolist()
        labels = range(len(scores)) if options.multi_class else [scores.index(max(scores))]
        if options.top_pairs:
            results += [(i, label, score) for label, score in enumerate(scores)]
        else:
            results += [(i, label, scores[label]) for label in labels if scores[label] > options.threshold]
    return best_results(results, options.max_results)


def output_masks(
    logits: Tensor, image_size: tuple[int, int], output_size: tuple[int, int], *, original: bool = False
) -> Tensor:
    """Resizes and thresholds masks.

    Args:
        logits: (N, T, h, w), stride 4, padding included.
        image_size: height and width of the network's input, without padding.
        output_size: height and width of the output.
        original: resize the logits straight to the output's size, as in the original release.

    Returns:
        (N, T, height, width) bool.
    """
    if original:
        return F.interpolate(logits, size=output_size, mode="bilinear", align_corners=False) > 0
    logits = F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)
    masks = logits[..., : image_size[0], : image_size[1]] > 0
    rows, columns = (_nearest(*sizes, logits.device) for sizes in zip(image_size, output_size, strict=True))
    # The memory of the result is column by column, the order of RLE.
    masks = masks.index_select(2, rows).transpose(2, 3).contiguous()
    return masks.index_select(2, columns).transpose(2, 3)


def _nearest(size: int, output_size: int, device: torch.device) -> Tensor:
    """Returns the indices (output_size,) at which ``F.interpolate`` samples with mode "nearest"."""
    places = torch.arange(size, dtype=torch.float32, device=device)
    return F.interpolate(places[None, None], size=output_size, mode="nearest")[0, 0].long()


def encode_outputs(
    logits: Tensor,
    image_size: tuple[int, int],
    output_size: tuple[int, int],
    present: Tensor | None = None,
    *,
    original: bool = False,
) -> list[list[RLE | None]]:
    """Resizes masks and encodes them as RLEs.

    Args:
        logits, image_size, output_size, original: see :func:`output_masks`.
        present: (N, T) bool; where it is false, the mask is empty whatever its logits.

    Returns:
        N lists of T masks; None where a mask is empty.
    """
    masks = output_masks(logits, image_size, output_size, original=original)
    if present is not None:
        masks &= present[..., None, None]
    return [encode_masks(mask) for mask in masks.cpu().numpy()]
