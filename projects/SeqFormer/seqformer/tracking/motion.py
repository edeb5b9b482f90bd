"""Assignment of a clip's instances to known ones by overlap and motion. Not in the paper.

Soft IoU on the frames that two clips share tells which masks agree. Where two instances cross, the masks of
one clip may slide from one to the other. They still agree with the masks of the next clip, and the two
instances have exchanged their ids. The motion before that clip is not affected.
"""

from __future__ import annotations

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
    """Ids of a clip's N instances, by overlap and motion, also of instances that clips have missed.

    1.  Known instances whose clips share frames with the new one are continued. A known instance and one of
        the clip are as similar as ``1 - weight`` times their soft IoU on the shared frames, as in
        :func:`seqformer.tracking.assign_by_overlap`, plus ``weight`` times the soft IoU on all frames of the
        clip with the last mask of the known one, moved on at its velocity. All instances of the clip take
        part that are at least somewhat probable, including duplicates: that one of them continues a known
        instance says more than that it is the most probable. Where two known instances would be continued by
        nearly the same masks, the one that more clips hold is.
    2.  Of the rest, those are kept, the most probable first, that do not show what is already shown.
    3.  Each of them is a live instance that was not continued, if it begins where the motion of that one
        leads, and otherwise a new one.

    Args:
        store: the clips and instances so far, made with the same ``options``.
        clip: the next clip, which begins after the last one.
        options: weight and thresholds.
        duplicate_iou: IoU of masks in space and time above which no new instance begins next to another.
        limit: most instances of the clip; those that are continued count and are never left out.

    Returns:
        ids; None for instances that are left out, as duplicates or as improbable.
    """
    store.follow(clip.start)
    best = clip.class_probabilities.amax(1)
    rows = (best >= options.least_probability).nonzero()[:, 0].tolist()
    ids: list[int | None] = [None] * len(clip)
    masks = (clip.mask_logits > 0).float()
    overlaps = soft_iou(masks, masks).cpu()
    for row, i in _continued(store, clip, options, best, rows, overlaps).items():
        ids[row] = i
    shown = [row for row in rows if ids[row] is not None]
    begun = _without_duplicates(best, rows, shown, overlaps, duplicate_iou, limit)
    for row, i in _found_again(store, clip, options, begun, ids).items():
        ids[row] = i
    for row in begun:
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
    """Ids of known instances, in clips that share frames with the new one, by the row that continues each."""
    known = sorted({i for held in store.clips if held.clip.end > clip.start for i in held.ids})
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
    found = {rows[column]: known[i] for i, column in pairs if possible[i, column]}
    kept: list[int] = []
    for row in sorted(found, key=lambda row: (-store.instances[found[row]].num_clips, found[row])):
        if not (overlaps[row, kept] > options.same_iou).any():
            kept.append(row)
    return {row: found[row] for row in kept}


def _without_duplicates(
    best: Tensor, rows: list[int], shown: list[int], overlaps: Tensor, duplicate_iou: float, limit: int
) -> list[int]:
    """Of ``rows``, those to show in addition to ``shown``, the most probable first."""
    shown, added = list(shown), []
    for row in sorted(set(rows) - set(shown), key=lambda row: (-best[row], row)):
        if len(shown) < limit and not (overlaps[row, shown] > duplicate_iou).any():
            shown.append(row)
            added.append(row)
    return added


def _found_again(
    store: InstanceStore,
    clip: ClipInstances,
    options: MotionOptions,
    rows: list[int],
    ids: list[int | None],
) -> dict[int, int]:
    """Ids of lost instances, by the row that begins where the motion of each leads."""
    lost = sorted(set(store.instances) - set(ids))
    if not lost or not rows:
        return {}
    begun = []
    for row in rows:
        begun.append(Path())
        for t, mask in enumerate(clip.mask_probabilities[row]):
            begun[-1].add(clip.start + t, mask, options)
    closeness = np.array(
        [[1 - store.instances[i].path.distance(b) / options.search_radius for b in begun] for i in lost]
    )
    pairs = zip(*linear_sum_assignment(closeness.clip(min=0), maximize=True), strict=True)
    return {rows[column]: lost[i] for i, column in pairs if closeness[i, column] > 0}


def _blurred(masks: Tensor) -> Tensor:
    """Means of 3x3 cells, so that motion by parts of a cell and changes of shape count less."""
    return F.avg_pool2d(masks, 3, stride=1, padding=1)
