"""Identity errors: how often an instance goes on under another identity."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_api
from scipy.optimize import linear_sum_assignment

from seqformer.errors import InputError
from seqformer.evaluation.tracks import Track, Tracks, read_tracks

__all__ = ["SCORE_THRESHOLD", "IdentityErrors", "count_identity_errors", "identity_errors"]

SCORE_THRESHOLD = 0.3
_IOU_THRESHOLD = 0.5


@dataclass
class IdentityErrors:
    """Counts over a dataset.

    Attributes:
        errors: times that a result other than the last one covers an instance.
        covered: instances that a result covers in at least one frame.
        instances: instances of the ground truth, without crowds.
    """

    errors: int = 0
    covered: int = 0
    instances: int = 0


def count_identity_errors(
    gt: dict[str, Any] | str | Path,
    results: list[dict[str, Any]] | str | Path,
    score_threshold: float = SCORE_THRESHOLD,
) -> IdentityErrors:
    """Counts how often instances are covered by different results over time.

    AP takes an instance that two results share for one that is hardly found; this tells whether tracking
    failed. It is the identity switch of CLEAR MOT (Bernardin and Stiefelhagen, 2008) on masks: in a frame, a
    result covers an instance of its category from an IoU of 0.5 on. Pairs of earlier frames stay while they
    overlap that much; the rest are assigned one to one for the highest sum of IoU. Every time an instance's
    result is not the one that covered it last is an error, also after a gap.

    Args:
        gt, results: as in :func:`seqformer.evaluation.evaluate_ytvis`.
        score_threshold: results below do not take part.

    Raises:
        InputError: if something is missing or malformed, or the threshold is not from 0 to 1.
    """
    return identity_errors(read_tracks(gt, results), score_threshold)


def identity_errors(tracks: Tracks, score_threshold: float = SCORE_THRESHOLD) -> IdentityErrors:
    """:func:`count_identity_errors` on what is already read."""
    if not 0 <= score_threshold <= 1:
        raise InputError(f"the score threshold must be from 0 to 1, not {score_threshold}")
    total = IdentityErrors()
    for key, truths in tracks.truths.items():
        truths = [truth for truth in truths if not truth.crowd]
        found = [track for track in tracks.detections.get(key, ()) if track.score >= score_threshold]
        last = _follow(truths, found, total) if truths and found else {}
        total.covered += len(last)
        total.instances += len(truths)
    return total


def _follow(truths: list[Track], found: list[Track], total: IdentityErrors) -> dict[int, int]:
    """Adds the errors of a video and category; returns which result covered which instance last."""
    last: dict[int, int] = {}
    for frame in range(len(truths[0].masks)):
        overlaps = _frame_overlaps(truths, found, frame)
        covers = overlaps >= _IOU_THRESHOLD
        kept = {g: d for g, d in last.items() if covers[g, d]}
        # Two instances may have had the same result in different frames; the one it overlaps more keeps it.
        for g, d in sorted(kept.items(), key=lambda pair: -overlaps[pair]):
            if covers[g, d]:
                covers[g], covers[:, d] = False, False
            else:
                del kept[g]
        assigned = linear_sum_assignment(-overlaps * covers)
        for g, d in zip(*(indices.tolist() for indices in assigned), strict=True):
            if covers[g, d]:
                total.errors += g in last and last[g] != d
                kept[g] = d
        last |= kept
    return last


def _frame_overlaps(truths: list[Track], found: list[Track], frame: int) -> np.ndarray:
    """IoU (G, D) in one frame."""
    overlaps = np.zeros((len(truths), len(found)))
    rows = [g for g, track in enumerate(truths) if track.areas[frame]]
    columns = [d for d, track in enumerate(found) if track.areas[frame]]
    if rows and columns:
        wanted, seen = (
            [tracks[i].masks[frame] for i in order] for tracks, order in ((truths, rows), (found, columns))
        )
        overlaps[np.ix_(rows, columns)] = mask_api.iou(wanted, seen, [0] * len(seen))
    return overlaps
