"""Clips of a long video: which instances of them are the same.

Source: SeqFormer, section 3.5 and supplement.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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

    A clip is forgotten when all its frames were handed out, and after ``length`` later ones in any case:
    from then on it shares no frame with a new clip, so nothing can be matched with it. An instance that none
    of the remaining clips holds is retired: no later clip can be matched with it, its probabilities are
    final, and ``pop_retired`` hands them out. The live instances are those of at most ``length`` clips, so
    there are never more than ``length`` times the instances of a clip, however many the video has; ids go on
    counting.

    ``max_live`` is a lower bound of one's own. Whenever a clip makes more instances live, those end that were
    not seen for the most clips; among these the ones whose best class is least probable, and the latest of
    equals. They lose their masks in frames that were not yet handed out, and one that is seen again is a new
    instance. Of an instance that the same clip found first nothing remains.

    A mean is the sum in the order of clips, divided by their number, for probabilities and logits alike.

    Args:
        length: frames in a clip, which is also how many previous clips a new one is compared with.
        max_live: most instances that are live after an update; 0 for no bound but the clips'.
    """

    def __init__(self, length: int, max_live: int = 0):
        self._clips: deque[_MatchedClip] = deque(maxlen=length)
        self._max_live = max_live
        self._probabilities: dict[int, tuple[Tensor, int]] = {}  # of live instances: sum over clips, how many
        self._retired: dict[int, Tensor] = {}
        self._final = 0  # frames before this one were handed out
        self._next_id = 0

    @property
    def num_final(self) -> int:
        """How many frames were handed out."""
        return self._final

    def state(self) -> dict[str, Any]:
        """What is remembered, as tensors, numbers, lists and dicts, for ``restore``."""
        clips = [
            {
                "start": m.clip.start,
                "class_probabilities": m.clip.class_probabilities,
                "mask_logits": m.clip.mask_logits,
                "ids": m.ids,
            }
            for m in self._clips
        ]
        counters = {"final": self._final, "next_id": self._next_id}
        return {"clips": clips, "probabilities": self._probabilities, "retired": self._retired, **counters}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on where ``state`` was taken."""
        self._clips.clear()
        for saved in state["clips"]:
            clip = ClipInstances(saved["start"], saved["class_probabilities"], saved["mask_logits"])
            self._clips.append(_MatchedClip(clip, list(saved["ids"]), clip.mask_logits.sigmoid()))
        self._probabilities, self._retired = dict(state["probabilities"]), dict(state["retired"])
        self._final, self._next_id = state["final"], state["next_id"]

    def instances(self) -> dict[int, Tensor]:
        """Mean class probabilities (K,) so far of the instances that ``pop_retired`` has not handed out.

        In order of first appearance.
        """
        live = {i: total / count for i, (total, count) in self._probabilities.items()}
        return dict(sorted({**self._retired, **live}.items()))

    def pop_retired(self) -> dict[int, Tensor]:
        """Final mean class probabilities (K,) of the instances that retired since the last call."""
        retired, self._retired = self._retired, {}
        return retired

    def finish(self) -> None:
        """Says that no clip follows; with its last frames every instance retires."""

    def update(self, clip: ClipInstances) -> Sequence[int | None]:
        """Takes in the next clip, which begins after the last one.

        Returns:
            its instances' ids, also of those that ``max_live`` ends at once; None for an instance that is
            left out, which only subclasses do.
        """
        probabilities = clip.mask_logits.sigmoid()
        ids = self._match(clip, probabilities)
        self._take_in(clip, ids, probabilities)
        return ids

    def _take_in(self, clip: ClipInstances, ids: list[int], probabilities: Tensor) -> None:
        for i, classes in zip(ids, clip.class_probabilities, strict=True):
            total, count = self._probabilities.get(i, (0, 0))
            self._probabilities[i] = (total + classes, count + 1)
        self._clips.append(_MatchedClip(clip, ids, probabilities))
        if self._max_live:
            self._drop_excess()
        self._retire()

    def _last_seen(self) -> dict[int, int]:
        """Of the live instances: the first frame of the last clip that held it."""
        return {i: m.clip.start for m in self._clips for i in m.ids}

    def _drop_excess(self) -> set[int]:
        """Takes instances beyond ``max_live`` out of all clips; returns them."""
        last_seen = self._last_seen()
        best = {i: float((total / count).max()) for i, (total, count) in self._probabilities.items()}
        excess = set(sorted(last_seen, key=lambda i: (-last_seen[i], -best[i], i))[self._max_live :])
        for number, m in enumerate(self._clips):
            rows = [row for row, i in enumerate(m.ids) if i not in excess]
            if len(rows) < len(m.ids):
                clip = m.clip
                kept = ClipInstances(clip.start, clip.class_probabilities[rows], clip.mask_logits[rows])
                ids = [m.ids[row] for row in rows]
                self._clips[number] = _MatchedClip(kept, ids, m.mask_probabilities[rows])
        for i in excess:
            if last_seen[i] == self._clips[-1].clip.start and self._probabilities[i][1] == 1:
                del self._probabilities[i]
        return excess

    def _retire(self) -> None:
        """Forgets clips whose frames were all handed out, and instances that no clip holds any more."""
        while self._clips and self._clips[0].clip.end <= self._final:
            self._clips.popleft()
        live = self._last_seen()
        for i in [i for i in self._probabilities if i not in live]:
            total, count = self._probabilities.pop(i)
            self._retired[i] = total / count

    def _match(self, clip: ClipInstances, probabilities: Tensor) -> list[int]:
        known = sorted({i for previous in self._clips for i in previous.ids})
        similarity = self._overlap(known, clip, probabilities)
        ids = [-1] * len(probabilities)
        for i, new in zip(*linear_sum_assignment(similarity.numpy(), maximize=True), strict=True):
            if similarity[i, new] > _MATCH_THRESHOLD:
                ids[new] = known[i]
        return [self._new_id() if i < 0 else i for i in ids]

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    def _overlap(self, known: list[int], clip: ClipInstances, probabilities: Tensor) -> Tensor:
        """Soft IoU (I, N) of known instances with a clip's, averaged over the clips that hold the former."""
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
        return similarity / counts.clamp(min=1)

    def pop_final(self, end: int, limit: int) -> FinalFrames | None:
        """Hands out up to ``limit`` frames before ``end`` that were not yet; None if there are none.

        Frames before the next clip's start are final; ``end`` must not be later than that.
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
        self._retire()
        return FinalFrames(start, ids, logits / counts.clamp(min=1), counts[..., 0, 0] > 0)
