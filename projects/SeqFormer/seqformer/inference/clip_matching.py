"""Clips of a long video: which instances of them are the same.

Source: SeqFormer, section 3.5 and supplement.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

__all__ = ["ClipInstances", "ClipMatcher", "FinalFrames", "soft_iou"]

_MATCH_THRESHOLD = 0.01


def soft_iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU of masks given as probabilities: (A, n, h, w) and (B, n, h, w) -> (A, B)."""
    p, q = first.flatten(1), second.flatten(1)
    intersection = p @ q.T
    union = p.sum(1, keepdim=True) + q.sum(1) - intersection
    return intersection / (union + 1e-6)


@dataclass
class ClipInstances:
    """What the network finds in one clip.

    Attributes:
        start: the clip's first frame.
        class_probabilities: (N, K).
        mask_logits: (N, T, h, w), stride 4, padding included.
    """

    start: int
    class_probabilities: Tensor
    mask_logits: Tensor

    @property
    def end(self) -> int:
        return self.start + self.mask_logits.shape[1]


@dataclass
class FinalFrames:
    """Frames that no later clip can change.

    Attributes:
        start: the first of the frames.
        ids: N instances seen in at least one of them.
        mask_logits: (N, n, h, w), the mean over the clips that hold the instance in a frame.
        present: (N, n) bool, whether any clip holds the instance in the frame; where none does, the
            logits are zero and mean nothing.
    """

    start: int
    ids: list[int]
    mask_logits: Tensor
    present: Tensor


@dataclass
class _MatchedClip:
    clip: ClipInstances
    ids: list[int]
    mask_probabilities: Tensor


class ClipMatcher:
    """Follows instances from clip to clip, with a state that does not grow with the video.

    Only the last ``length`` clips are kept. Frames are handed out as soon as they are final.

    Args:
        length: frames in a clip, which is also how many previous clips a new one is compared with.
    """

    def __init__(self, length: int):
        self._clips: deque[_MatchedClip] = deque(maxlen=length)
        self._probabilities: dict[int, tuple[Tensor, int]] = {}  # sum over clips, how many
        self._final = 0  # frames before this one were handed out

    def instances(self) -> dict[int, Tensor]:
        """Mean class probabilities (K,) of every instance so far, in order of first appearance."""
        return {i: total / count for i, (total, count) in self._probabilities.items()}

    def update(self, clip: ClipInstances) -> list[int]:
        """Takes in the next clip; clips come in order. Returns its instances' ids."""
        probabilities = clip.mask_logits.sigmoid()
        ids = self._match(clip, probabilities)
        for i, classes in zip(ids, clip.class_probabilities, strict=True):
            total, count = self._probabilities.get(i, (0, 0))
            self._probabilities[i] = (total + classes, count + 1)
        self._clips.append(_MatchedClip(clip, ids, probabilities))
        return ids

    def _match(self, clip: ClipInstances, probabilities: Tensor) -> list[int]:
        known = sorted({i for previous in self._clips for i in previous.ids})
        row = {i: index for index, i in enumerate(known)}
        similarity = torch.zeros(len(known), len(probabilities))
        counts = torch.zeros(len(known), 1)
        for previous in self._clips:
            overlap = previous.clip.end - clip.start
            if overlap <= 0:
                continue
            offset = clip.start - previous.clip.start
            rows = [row[i] for i in previous.ids]
            similarity[rows] += soft_iou(
                previous.mask_probabilities[:, offset:], probabilities[:, :overlap]
            ).cpu()
            counts[rows] += 1
        similarity /= counts.clamp(min=1)
        ids = [-1] * len(probabilities)
        for i, new in zip(*linear_sum_assignment(similarity.numpy(), maximize=True), strict=True):
            if similarity[i, new] > _MATCH_THRESHOLD:
                ids[new] = known[i]
        fresh = len(self._probabilities)
        for new, i in enumerate(ids):
            if i < 0:
                ids[new] = fresh
                fresh += 1
        return ids

    def pop_final(self, end: int, limit: int) -> FinalFrames | None:
        """Hands out up to ``limit`` frames before ``end`` that were not yet; None if there are none.

        Frames before the next clip's start are final.
        """
        start = self._final
        end = min(end, start + limit)
        if start >= end:
            return None
        self._final = end
        size = self._clips[-1].clip.mask_logits.shape[-2:]
        holding = [m for m in self._clips if m.clip.start < end and m.clip.end > start]
        ids = sorted({i for m in holding for i in m.ids})
        row = {i: index for index, i in enumerate(ids)}
        logits = self._clips[-1].clip.mask_logits.new_zeros(len(ids), end - start, *size)
        counts = logits.new_zeros(len(ids), end - start, 1, 1)
        for m in holding:
            first, final = max(start, m.clip.start), min(end, m.clip.end)
            rows = [row[i] for i in m.ids]
            here = slice(first - start, final - start)
            logits[rows, here] += m.clip.mask_logits[:, first - m.clip.start : final - m.clip.start]
            counts[rows, here] += 1
        return FinalFrames(start, ids, logits / counts.clamp(min=1), counts[..., 0, 0] > 0)
