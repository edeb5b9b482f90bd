"""Assigns the instances of a clip to active ones by the overlap of their masks.

Source: SeqFormer, section 3.5 and supplement.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from seqformer.tracking.clips import ClipInstances
from seqformer.tracking.store import InstanceStore

__all__ = ["assign_by_overlap", "overlap_with_known", "soft_iou"]

_IOU_THRESHOLD = 0.01


def soft_iou(first: Tensor, second: Tensor) -> Tensor:
    """Soft IoU of mask probabilities: (A, n, h, w) and (B, n, h, w) -> (A, B)."""
    p, q = first.flatten(1), second.flatten(1)
    intersection = p @ q.T
    union = p.sum(1, keepdim=True) + q.sum(1) - intersection
    return intersection / (union + 1e-6)


def overlap_with_known(store: InstanceStore, known: Sequence[int], clip: ClipInstances) -> Tensor:
    """Returns the soft IoU (I, N) of known instances and the instances of a clip.

    It is computed on the frames that the clip shares with each stored clip, and averaged over the stored
    clips that share frames and contain the known instance; 0 if there are none.
    """
    row = {i: index for index, i in enumerate(known)}
    similarity = torch.zeros(len(known), len(clip))
    counts = torch.zeros(len(known), 1)
    for stored in store.clips:
        shared = stored.clip.end - clip.start
        if shared <= 0:
            continue
        offset = clip.start - stored.clip.start
        rows = [row[i] for i in stored.ids]
        similarity[rows] += soft_iou(
            stored.clip.mask_probabilities[:, offset:], clip.mask_probabilities[:, :shared]
        ).cpu()
        counts[rows] += 1
    return similarity / counts.clamp(min=1)


def assign_by_overlap(store: InstanceStore, clip: ClipInstances) -> list[int]:
    """Assigns ids to a clip's N instances, as published.

    The assignment is one to one and maximises the sum of soft IoU. A pair above the IoU threshold of 0.01 is
    the same instance; the other instances of the clip are new.

    Args:
        store: the clips and instances so far.
        clip: the next clip, which begins after the last one.
    """
    known = sorted({i for stored in store.clips for i in stored.ids})
    similarity = overlap_with_known(store, known, clip)
    ids: list[int | None] = [None] * len(clip)
    for i, row in zip(*linear_sum_assignment(similarity.numpy(), maximize=True), strict=True):
        if similarity[i, row] > _IOU_THRESHOLD:
            ids[row] = known[i]
    return [store.new_id() if i is None else i for i in ids]
