"""Clip matching that also expects instances where their movement leads.

Not in the paper. Soft IoU on the frames that two clips share says which masks agree. Where two people cross,
the masks of one clip may glide from one person to the other; they agree with those of the next clip, and the
two have changed their ids. Movement before the clip is not touched by that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from seqformer.inference.clip_matching import ClipInstances, ClipMatcher, FinalFrames, soft_iou

__all__ = ["MotionMatcher"]

_LEAST_SIMILARITY = 0.2
_LEAST_PROBABILITY = 0.1  # less probable instances neither continue nor begin one
_PROBABILITY_WEIGHT = 0.3  # of two instances that continue one about as well the more probable does
_SAME_IOU = 0.9  # of two instances with nearly the same masks one ends up with them
_LEAST_CELLS = 4  # of a mask that says where its instance is
_FARTHEST = 0.4  # of an instance's height, from where it was expected to where it is found again
_WINDOW = 5  # frames before the last one with the instance, over which its velocity is fitted


@dataclass
class _Path:
    """Where an instance was in the last frames that show it, as far as no later clip can change them.

    Attributes:
        last_clip: first frame of the last clip that holds the instance.
        clips_since: how many clips came after it.
        points: frame, x, y of the mask's centre in cells; of the last ``_WINDOW`` frames and one more.
        mask: (h, w) probabilities in the frame of the last point.
    """

    last_clip: int = 0
    clips_since: int = 0
    points: list[tuple[int, float, float]] = field(default_factory=list)
    mask: Tensor | None = None

    def add(self, frame: int, probabilities: Tensor) -> None:
        cells = (probabilities > 0.5).sum()
        if cells < _LEAST_CELLS:
            return
        total = probabilities.sum()
        height, width = probabilities.shape
        x = (probabilities.sum(0) @ torch.arange(width, device=total.device, dtype=total.dtype)) / total
        y = (probabilities.sum(1) @ torch.arange(height, device=total.device, dtype=total.dtype)) / total
        first = frame - _WINDOW
        self.points = [p for p in self.points if p[0] >= first] + [(frame, float(x), float(y))]
        self.mask = probabilities

    def predict(self, frames: range) -> Tensor | None:
        """Masks (n, h, w) that the last one makes when it moves on as before; None if there was none."""
        if self.mask is None:
            return None
        vx, vy = self._velocity()
        steps = [t - self.points[-1][0] for t in frames]
        return torch.stack([_shifted(self.mask, round(vx * n), round(vy * n)) for n in steps])

    def distance(self, other: _Path) -> float:
        """From where this one would be to where ``other`` begins, in heights of the taller one."""
        if self.mask is None or other.mask is None:
            return float("inf")
        frame, x, y = self.points[-1]
        vx, vy = self._velocity()
        begin, to_x, to_y = other.points[0]
        away = math.hypot(x + vx * (begin - frame) - to_x, y + vy * (begin - frame) - to_y)
        return away / max(_height(self.mask), _height(other.mask))

    def _velocity(self) -> tuple[float, float]:
        """Cells a frame along x and y, by least squares; 0 where fewer than three points are known."""
        if len(self.points) < 3:
            return 0.0, 0.0
        t, x, y = np.array(self.points).T
        t = t - t.mean()
        return float(t @ x / (t @ t)), float(t @ y / (t @ t))


class MotionMatcher(ClipMatcher):
    """Follows instances by overlap and movement, also through clips that miss them.

    1.  Known instances whose clips share frames with the new one are continued. A known instance and one of
        the clip are as similar as ``(1 - weight)`` times their soft IoU on the shared frames, averaged over
        clips as in ``ClipMatcher``, plus ``weight`` times the soft IoU on all frames of the clip with the
        masks that the known one's last mask makes when it moves on as before. All instances of the clip take
        part that are at least somewhat probable, duplicates, too: that one of them continues a known one says
        more than that it is the most probable. Where two known ones would be continued by nearly the same
        masks, the one that was held by more clips is.
    2.  Of the rest those are kept, the most probable first, that do not show what is already shown.
    3.  Each of them is a known instance of the last ``memory`` clips that was not continued, if it begins
        where that one's movement leads, and otherwise a new one.

    An instance is live for ``memory`` clips after the last that held it, or as long as its masks and a new
    clip share frames, if that is longer. At most ``limit`` instances are added to what a clip continues, so
    the state does not grow with the video.

    Args:
        length: frames in a clip, at least 2.
        max_live: most instances that are live after an update, as in ``ClipMatcher``; 0 for no such bound.
        weight: of movement, above 0 and below 1.
        memory: clips for which an instance is looked for.
        duplicate_iou: of masks, in space and time, above which no new instance begins beside another.
        limit: a clip begins new instances up to so many in all.
    """

    def __init__(
        self, length: int, max_live: int, *, weight: float, memory: int, duplicate_iou: float, limit: int
    ):
        super().__init__(length, max_live)
        self._weight = weight
        self._memory = memory
        self._duplicate_iou = duplicate_iou
        self._limit = limit
        self._paths: dict[int, _Path] = {}
        self._followed = 0  # frames before this one are in the paths
        self._finished = False

    def state(self) -> dict[str, Any]:
        paths = {i: vars(path).copy() for i, path in self._paths.items()}
        return {**super().state(), "paths": paths, "followed": self._followed}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self._paths = {i: _Path(**path) for i, path in state["paths"].items()}
        self._followed = state["followed"]

    def finish(self) -> None:
        self._finished = True

    def update(self, clip: ClipInstances) -> list[int | None]:
        """Takes in the next clip, which begins after the last one.

        Returns:
            its instances' ids; None for those that are left out, as duplicates or as improbable.
        """
        self._follow(clip.start)
        probabilities = clip.mask_logits.sigmoid()
        found = self._continue_or_begin(clip, probabilities)
        rows = [row for row, i in enumerate(found) if i is not None]
        ids = [i for i in found if i is not None]
        for path in self._paths.values():
            path.clips_since += 1
        for i in ids:
            path = self._paths.setdefault(i, _Path())
            path.last_clip, path.clips_since = clip.start, 0
        kept = ClipInstances(clip.start, clip.class_probabilities[rows], clip.mask_logits[rows])
        self._take_in(kept, ids, probabilities[rows])
        return found

    def pop_final(self, end: int, limit: int) -> FinalFrames | None:
        self._follow(min(end, self._final + limit))
        return super().pop_final(end, limit)

    def _last_seen(self) -> dict[int, int]:
        seen = super()._last_seen()
        if not self._finished:
            remembered = {i: p.last_clip for i, p in self._paths.items() if p.clips_since < self._memory}
            seen = {**remembered, **seen}
        return seen

    def _drop_excess(self) -> set[int]:
        excess = super()._drop_excess()
        for i in excess:
            del self._paths[i]
        return excess

    def _retire(self) -> None:
        super()._retire()
        self._paths = {i: path for i, path in self._paths.items() if i in self._probabilities}

    def _follow(self, end: int) -> None:
        """Continues paths up to the frame ``end``, before which no mask changes any more."""
        for frame in range(self._followed, end):
            masks: dict[int, list[Tensor]] = {}
            for m in self._clips:
                if m.clip.start <= frame < m.clip.end:
                    for i, logits in zip(m.ids, m.clip.mask_logits[:, frame - m.clip.start], strict=True):
                        masks.setdefault(i, []).append(logits)
            for i, logits in masks.items():
                self._paths[i].add(frame, torch.stack(logits).mean(0).sigmoid())
        self._followed = max(self._followed, end)

    def _continue_or_begin(self, clip: ClipInstances, probabilities: Tensor) -> list[int | None]:
        best = clip.class_probabilities.amax(1)
        rows = (best >= _LEAST_PROBABILITY).nonzero()[:, 0].tolist()
        ids: list[int | None] = [None] * len(best)
        masks = (clip.mask_logits > 0).float()
        overlaps = soft_iou(masks, masks).cpu()
        if rows:
            for row, i in self._continued(clip, probabilities, best, rows, overlaps).items():
                ids[row] = i
        begun = self._without_duplicates(best, rows, [row for row in rows if ids[row] is not None], overlaps)
        for row, i in self._found_again(clip, probabilities, begun, ids).items():
            ids[row] = i
        for row in begun:
            if ids[row] is None:
                ids[row] = self._new_id()
        return ids

    def _continued(
        self, clip: ClipInstances, probabilities: Tensor, best: Tensor, rows: list[int], overlaps: Tensor
    ) -> dict[int, int]:
        """Ids of the clip's instances that are those of clips with which it shares frames, by row."""
        known = sorted({i for m in self._clips if m.clip.end > clip.start for i in m.ids})
        if not known:
            return {}
        similarity = self._overlap(known, clip, probabilities)
        predicted = [self._paths[i].predict(range(clip.start, clip.end)) for i in known]
        moving = [row for row, masks in enumerate(predicted) if masks is not None]
        if moving:
            masks = torch.stack([predicted[row] for row in moving])
            moved = soft_iou(_blurred(masks), _blurred(probabilities)).cpu()
            similarity[moving] = self._weight * moved + (1 - self._weight) * similarity[moving]
        similarity = similarity[:, rows]
        possible = similarity > _LEAST_SIMILARITY
        gain = possible * (similarity + _PROBABILITY_WEIGHT * best[rows])
        pairs = zip(*linear_sum_assignment(gain.numpy(), maximize=True), strict=True)
        found = {rows[column]: known[i] for i, column in pairs if possible[i, column]}
        kept: list[int] = []
        for row in sorted(found, key=lambda row: (-self._probabilities[found[row]][1], found[row])):
            if not (overlaps[row, kept] > _SAME_IOU).any():
                kept.append(row)
        return {row: found[row] for row in kept}

    def _without_duplicates(
        self, best: Tensor, rows: list[int], shown: list[int], overlaps: Tensor
    ) -> list[int]:
        """Of ``rows`` those to show beside ``shown``, most probable first."""
        shown, added = list(shown), []
        for row in sorted(set(rows) - set(shown), key=lambda row: (-best[row], row)):
            if len(shown) < self._limit and not (overlaps[row, shown] > self._duplicate_iou).any():
                shown.append(row)
                added.append(row)
        return added

    def _found_again(
        self, clip: ClipInstances, probabilities: Tensor, rows: list[int], ids: list[int | None]
    ) -> dict[int, int]:
        """Ids of instances that were lost and are where their movement led, by row."""
        lost = sorted(set(self._last_seen()) - set(ids))
        if not lost or not rows:
            return {}
        begun = []
        for row in rows:
            begun.append(_Path())
            for t, mask in enumerate(probabilities[row]):
                begun[-1].add(clip.start + t, mask)
        closeness = np.array([[1 - self._paths[i].distance(b) / _FARTHEST for b in begun] for i in lost])
        pairs = zip(*linear_sum_assignment(closeness.clip(min=0), maximize=True), strict=True)
        return {rows[column]: lost[i] for i, column in pairs if closeness[i, column] > 0}


def _height(mask: Tensor) -> int:
    """Rows from the first to the last with a cell that is probably the instance's."""
    rows = (mask > 0.5).any(1).nonzero()[:, 0]
    return int(rows[-1] - rows[0]) + 1


def _shifted(mask: Tensor, dx: int, dy: int) -> Tensor:
    """(h, w) moved by whole cells; what comes from outside is zero."""
    height, width = mask.shape
    dx, dy = max(min(dx, width), -width), max(min(dy, height), -height)
    padded = F.pad(mask, (max(dx, 0), max(-dx, 0), max(dy, 0), max(-dy, 0)))
    return padded[max(-dy, 0) :, max(-dx, 0) :][:height, :width]


def _blurred(masks: Tensor) -> Tensor:
    """Means of 3x3 cells, for a person's steps and swinging legs are no whole cells."""
    return F.avg_pool2d(masks, 3, stride=1, padding=1)
