"""Assigns the instances of a clip to active ones by overlap and motion. Not in the paper.

Soft IoU on shared frames measures whether the masks of two clips agree. Where two instances cross, the masks
of a clip may drift from one to the other. They still agree with the masks of the next clip, so overlap alone
swaps the two ids. The motion before the crossing is not affected by the drift.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from seqformer.tracking.clips import ClipInstances
from seqformer.tracking.options import MotionOptions
from seqformer.tracking.overlap import overlap_with_known, soft_iou
from seqformer.tracking.path import Path
from seqformer.tracking.store import InstanceStore

__all__ = ["assign_by_motion"]


def assign_by_motion(
    store: InstanceStore, clip: ClipInstances, options: MotionOptions, *, duplicate_iou: float, limit: int
) -> list[int | None]:
    """Assigns ids to a clip's N instances by overlap and motion, and recovers instances that clips missed.

    1.  Continue active instances whose clips share frames with the new clip. The similarity of an active
        instance and a candidate of the clip is ``1 - weight`` times their soft IoU on the shared frames, as
        in :func:`seqformer.tracking.assign_by_overlap`, plus ``weight`` times the soft IoU, on all frames of
        the clip, of the candidate and the active instance's last mask moved at its velocity. Duplicates are
        candidates as well, because the best continuation matters more than the most probable one. If two
        active instances would be continued by nearly the same masks, the one that more clips contain is.
    2.  Of the remaining candidates, keep the most probable ones that do not duplicate a kept one.
    3.  If one of these begins where the motion of a lost instance (active, but not continued) leads, it gets
        that id. Otherwise it is a new instance.

    Args:
        store: the clips and instances so far, created with the same ``options``.
        clip: the next clip, which begins after the last one.
        options: weight and thresholds.
        duplicate_iou: space-time IoU above which a candidate is a duplicate of a kept one.
        limit: maximum number of instances of the clip. Continued instances count, but are never dropped.

    Returns:
        N ids; None for instances that are dropped because they are duplicates or improbable.
    """
    store.follow(clip.start)
    best = clip.class_probabilities.amax(1)
    rows = (best >= options.least_probability).nonzero()[:, 0].tolist()
    ids: list[int | None] = [None] * len(clip)
    masks = (clip.mask_logits > 0).float()
    overlaps = soft_iou(masks, masks).cpu()
    for row, i in _continued(store, clip, options, best, rows, overlaps).items():
        ids[row] = i
    continued = [row for row in rows if ids[row] is not None]
    added = _without_duplicates(best, rows, continued, overlaps, duplicate_iou, limit)
    for row, i in _recovered(store, clip, options, added, ids).items():
        ids[row] = i
    for row in added:
        if ids[row] is None:
            ids[row] = store.new_id()
    return ids


def _continued(
    store: InstanceStore,
    clip: ClipInstances,
    options: MotionOptions,
    best: Tensor,
    rows: list[int],
    overlaps: Tensor,
) -> dict[int, int]:
    """Returns the ids of continued instances, by the row that continues each."""
    known = sorted({i for stored in store.clips if stored.clip.end > clip.start for i in stored.ids})
    if not known or not rows:
        return {}
    similarity = overlap_with_known(store, known, clip)
    predicted = [store.instances[i].path.predict(range(clip.start, clip.end)) for i in known]
    moving = [index for index, masks in enumerate(predicted) if masks is not None]
    if moving:
        masks = torch.stack([masks for masks in predicted if masks is not None])
        moved = soft_iou(_blurred(masks), _blurred(clip.mask_probabilities)).cpu()
        similarity[moving] = options.weight * moved + (1 - options.weight) * similarity[moving]
    similarity = similarity[:, rows]
    possible = similarity > options.least_similarity
    gain = possible * (similarity + options.probability_weight * best[rows])
    pairs = zip(*linear_sum_assignment(gain.numpy(), maximize=True), strict=True)
    assigned = {rows[column]: known[i] for i, column in pairs if possible[i, column]}
    kept: list[int] = []
    for row in sorted(assigned, key=lambda row: (-store.instances[assigned[row]].num_clips, assigned[row])):
        if not (overlaps[row, kept] > options.same_iou).any():
            kept.append(row)
    return {row: assigned[row] for row in kept}


def _without_duplicates(
    best: Tensor, rows: list[int], continued: list[int], overlaps: Tensor, duplicate_iou: float, limit: int
) -> list[int]:
    """Returns the ``rows`` to keep in addition to ``continued``, the most probable first."""
    kept, added = list(continued), []
    for row in sorted(set(rows) - set(continued), key=lambda row: (-best[row], row)):
        if len(kept) < limit and not (overlaps[row, kept] > duplicate_iou).any():
            kept.append(row)
            added.append(row)
    return added


def _recovered(
    store: InstanceStore,
    clip: ClipInstances,
    options: MotionOptions,
    rows: list[int],
    ids: list[int | None],
) -> dict[int, int]:
    """Returns the ids of recovered instances, by the row that begins where the motion of each leads."""
    lost = sorted(set(store.instances) - set(ids))
    if not lost or not rows:
        return {}
    paths = []
    for row in rows:
        paths.append(Path())
        for t, mask in enumerate(clip.mask_probabilities[row]):
            paths[-1].add(clip.start + t, mask, options)
    closeness = np.array(
        [[1 - store.instances[i].path.distance(path) / options.search_radius for path in paths] for i in lost]
    )
    pairs = zip(*linear_sum_assignment(closeness.clip(min=0), maximize=True), strict=True)
    return {rows[column]: lost[i] for i, column in pairs if closeness[i, column] > 0}


def _blurred(masks: Tensor) -> Tensor:
    """Averages 3x3 cells of masks (N, n, h, w), so that sub-cell motion and changes of shape matter less.

    PyTorch's pooling is exactly the same, and several times slower on CPUs for masks as they are in memory.
    """
    height, width = masks.shape[-2:]
    padded = F.pad(masks, (1, 1, 1, 1))
    total = torch.zeros_like(masks)
    for y, x in product(range(3), repeat=2):
        total += padded[..., y : y + height, x : x + width]
    return total.div_(9)
