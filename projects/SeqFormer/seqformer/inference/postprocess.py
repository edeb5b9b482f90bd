"""From queries to scored instances and masks of the output size."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seqformer.inference.clip_matching import soft_iou

__all__ = [
    "InferenceOptions",
    "best_results",
    "output_masks",
    "scored_classes",
    "select_queries",
    "without_duplicates",
]


@dataclass(frozen=True)
class InferenceOptions:
    """How results are made of queries.

    Attributes:
        threshold: least class probability of a result.
        multi_class: every class above the threshold is a result; otherwise an instance's best one.
        top_pairs: the original release's protocol: the best (query, class) pairs, whatever their
            probability, instead of the best queries with every class above the threshold. It holds for
            whole videos; clip matching follows queries.
        clip_matching: cut videos into clips; otherwise a video is one clip.
        auto_memory_gb: if not 0, it decides in the place of ``clip_matching``: a video is one clip if that
            takes at most so many GB, and is cut into clips otherwise, or where its length is not known.
        clip_length, clip_stride: frames in a clip, and from one clip's start to the next one's.
        max_live_instances: if not 0, the most instances that clip matching follows at a time.
        merge_on_cpu: keep clips' masks in main memory.
        num_instances: instances kept of a clip.
        duplicate_iou: of instances of a clip whose masks overlap more the most probable is kept; 1 keeps all.
            Below 1 twice ``num_instances`` queries are drawn: the next best take the duplicates' places.
        motion_weight: if not 0, how much clip matching goes by movement, and the rest by overlap; which of
            duplicates is kept is then decided by what continues instances.
        motion_memory: for how many clips that looks for an instance that is not found.
    """

    threshold: float = 0.05
    multi_class: bool = True
    top_pairs: bool = False
    clip_matching: bool = False
    auto_memory_gb: float = 0.0
    clip_length: int = 5
    clip_stride: int = 1
    max_live_instances: int = 0
    merge_on_cpu: bool = True
    num_instances: int = 10
    duplicate_iou: float = 1.0
    motion_weight: float = 0.0
    motion_memory: int = 6

    @property
    def num_drawn(self) -> int:
        """The most queries of a clip whose masks are drawn."""
        return self.num_instances * (2 if self.duplicate_iou < 1 else 1)


def select_queries(probabilities: Tensor, options: InferenceOptions) -> Tensor:
    """Indices of the queries to draw, best first, of class probabilities (Q, K)."""
    if options.top_pairs:
        pairs = probabilities.flatten()
        queries = pairs.topk(min(options.num_drawn, len(pairs))).indices // probabilities.shape[1]
        # The place of a query is that of its best pair; ``unique`` would sort by index.
        return queries.new_tensor(list(dict.fromkeys(queries.tolist())))
    return probabilities.amax(1).topk(min(options.num_drawn, len(probabilities))).indices


def without_duplicates(probabilities: Tensor, mask_logits: Tensor, most: float, limit: int) -> Tensor:
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
    overlaps = soft_iou(masks, masks) > most
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
    return best_results(results, options)


def best_results(
    results: Iterable[tuple[int, int, float]], options: InferenceOptions
) -> list[tuple[int, int, float]]:
    """Those of a video's results that count, in their order; whatever ``results`` were split into.

    Every one, in order of first appearance; with ``top_pairs`` the best few, best first.
    """
    if options.top_pairs:
        return sorted(results, key=lambda r: (-r[2], r[0], r[1]))[: options.num_instances]
    return sorted(results, key=lambda r: r[:2])


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
