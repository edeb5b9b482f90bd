"""The state of tracking: the last clips, and the active instances."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from seqformer.tracking.clips import ClipInstances, FinalFrames
from seqformer.tracking.options import MotionOptions
from seqformer.tracking.path import Path

__all__ = ["StoredClip", "Instance", "InstanceStore"]


@dataclass
class StoredClip:
    """A clip that later clips are compared with.

    Attributes:
        clip: the N instances of the clip.
        ids: their N ids.
    """

    clip: ClipInstances
    ids: list[int]


@dataclass
class Instance:
    """An active instance: a later clip can continue it.

    Attributes:
        total: (K,) class probabilities, summed over the clips that contain the instance, in order.
        num_clips: number of clips that contain it.
        last_clip: first frame of the last clip that contains it.
        clips_since: number of clips after that one.
        path: its positions in final frames; empty without motion.
    """

    total: Tensor
    num_clips: int
    last_clip: int
    clips_since: int = 0
    path: Path = field(default_factory=Path)

    @property
    def probabilities(self) -> Tensor:
        """(K,) mean class probabilities over the clips that contain the instance."""
        return self.total / self.num_clips


class InstanceStore:
    """The state of clip matching. Its size does not grow with the length of the video.

    For each clip, in order: a strategy (:func:`seqformer.tracking.assign_by_overlap` or
    :func:`seqformer.tracking.assign_by_motion`) compares the clip with the store and returns ids, ``add``
    stores the clip with these ids, and ``pop_final`` returns the frames that no later clip can change.

    A clip is dropped once all its frames are final, or after ``length`` later clips, when it can no longer
    share frames with a new one. An instance is active while a stored clip contains it or, with motion, for
    ``motion.memory`` clips after the last clip that did. Then it retires: its class probabilities are final,
    and ``pop_retired`` returns them. So the number of active instances is bounded. Ids are never reused.

    ``max_active`` sets a lower bound. When a clip exceeds it, the least recently seen instances are dropped;
    ties are broken by lower probability, then by higher id. A dropped instance loses its masks in frames that
    are not final yet, and is a new instance if it reappears. An instance that is dropped by the clip that
    added it leaves no trace.

    Probabilities and logits are averaged by summing them in the order of clips and dividing by their number.

    Args:
        length: frames per clip; also the number of previous clips that a new clip is compared with.
        max_active: maximum number of active instances after a clip; 0 for no limit.
        motion: options of assignment by motion; None for assignment by overlap.

    Attributes:
        clips: the last clips, oldest first.
        instances: the active instances by id.
        num_final: number of final frames.
    """

    def __init__(self, length: int, max_active: int = 0, motion: MotionOptions | None = None):
        self.clips: deque[StoredClip] = deque(maxlen=length)
        self.instances: dict[int, Instance] = {}
        self.num_final = 0
        self._max_active = max_active
        self._motion = motion
        self._memory = motion.memory if motion else 0
        self._retired: dict[int, Tensor] = {}
        self._followed = 0  # frames before this one are in the paths
        self._next_id = 0

    def new_id(self) -> int:
        """Returns the next unused id."""
        self._next_id += 1
        return self._next_id - 1

    def add(self, clip: ClipInstances, ids: Sequence[int | None]) -> None:
        """Stores the next clip.

        Args:
            clip: the N instances of the clip.
            ids: their N ids; instances with None are dropped.
        """
        rows = [row for row, i in enumerate(ids) if i is not None]
        if len(rows) < len(clip):
            clip = clip.select(rows)
        stored = StoredClip(clip, [i for i in ids if i is not None])
        for instance in self.instances.values():
            instance.clips_since += 1
        for i, probabilities in zip(stored.ids, clip.class_probabilities, strict=True):
            if i in self.instances:
                instance = self.instances[i]
                instance.total = instance.total + probabilities
                instance.num_clips += 1
                instance.last_clip, instance.clips_since = clip.start, 0
            else:
                self.instances[i] = Instance(probabilities.clone(), 1, clip.start)
        self.clips.append(stored)
        self._retire()
        if self._max_active:
            self._drop_excess()

    def finish(self) -> None:
        """Declares that there are no more clips, so that all instances retire with the last frames."""
        self._memory = 0

    def follow(self, end: int) -> None:
        """Extends the paths of instances to the frames before ``end``, whose masks must be final."""
        if self._motion is None:
            return
        for frame in range(self._followed, end):
            masks: dict[int, list[Tensor]] = {}
            for stored in self.clips:
                clip = stored.clip
                if clip.start <= frame < clip.end:
                    for i, logits in zip(stored.ids, clip.mask_logits[:, frame - clip.start], strict=True):
                        masks.setdefault(i, []).append(logits)
            for i, logits in masks.items():
                mean = torch.stack(logits).mean(0).sigmoid()
                self.instances[i].path.add(frame, mean, self._motion)
        self._followed = max(self._followed, end)

    def pop_final(self, end: int, limit: int) -> FinalFrames | None:
        """Returns the next final frames, at most ``limit``; None if there are none before ``end``.

        Frames before the start of the next clip are final; ``end`` must not be after that.
        """
        start = self.num_final
        end = min(end, start + limit)
        if start >= end:
            return None
        self.follow(end)
        self.num_final = end
        overlapping = [stored for stored in self.clips if stored.clip.start < end and stored.clip.end > start]
        ids = sorted({i for stored in overlapping for i in stored.ids})
        row = {i: index for index, i in enumerate(ids)}
        last = self.clips[-1].clip.mask_logits
        logits = last.new_zeros(len(ids), end - start, *last.shape[-2:])
        counts = logits.new_zeros(len(ids), end - start, 1, 1)
        for stored in overlapping:
            clip = stored.clip
            first, stop = max(start, clip.start), min(end, clip.end)
            rows = [row[i] for i in stored.ids]
            here = slice(first - start, stop - start)
            logits[rows, here] += clip.mask_logits[:, first - clip.start : stop - clip.start]
            counts[rows, here] += 1
        self._retire()
        return FinalFrames(start, ids, logits / counts.clamp(min=1), counts[..., 0, 0] > 0)

    def probabilities(self) -> dict[int, Tensor]:
        """Returns mean class probabilities (K,) so far of active and not yet popped instances, by id."""
        active = {i: instance.probabilities for i, instance in self.instances.items()}
        return dict(sorted({**self._retired, **active}.items()))

    def pop_retired(self) -> dict[int, Tensor]:
        """Returns the final mean class probabilities (K,) of instances retired since the last call, by id."""
        retired, self._retired = self._retired, {}
        return dict(sorted(retired.items()))

    def state(self) -> dict[str, Any]:
        """Returns the state for ``restore``, for saving with ``torch.save``.

        It has only tensors, numbers, lists and dicts, so ``torch.load`` works with ``weights_only=True``.
        """
        return {
            "clips": [
                {
                    "start": stored.clip.start,
                    "class_probabilities": stored.clip.class_probabilities,
                    "mask_logits": stored.clip.mask_logits,
                    "ids": stored.ids,
                }
                for stored in self.clips
            ],
            "instances": {
                i: {**vars(instance), "path": vars(instance.path).copy()}
                for i, instance in self.instances.items()
            },
            "retired": dict(self._retired),
            "num_final": self.num_final,
            "followed": self._followed,
            "next_id": self._next_id,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continues from a saved ``state``.

        Raises:
            KeyError, TypeError: if ``state`` is malformed.
        """
        self.clips.clear()
        for saved in state["clips"]:
            clip = ClipInstances(saved["start"], saved["class_probabilities"], saved["mask_logits"])
            self.clips.append(StoredClip(clip, list(saved["ids"])))
        self.instances = {
            i: Instance(**{**saved, "path": Path(**saved["path"])}) for i, saved in state["instances"].items()
        }
        self._retired = dict(state["retired"])
        self.num_final, self._followed = state["num_final"], state["followed"]
        self._next_id = state["next_id"]

    def _retire(self) -> None:
        """Drops clips whose frames are all final, and retires instances that are no longer active."""
        while self.clips and self.clips[0].clip.end <= self.num_final:
            self.clips.popleft()
        in_clips = {i for stored in self.clips for i in stored.ids}
        for i, instance in list(self.instances.items()):
            if i not in in_clips and instance.clips_since >= self._memory:
                self._retired[i] = self.instances.pop(i).probabilities

    def _drop_excess(self) -> None:
        """Removes the instances beyond ``max_active`` from all clips."""

        def priority(i: int) -> tuple[int, float, int]:
            instance = self.instances[i]
            return -instance.last_clip, -float(instance.probabilities.max()), i

        excess = set(sorted(self.instances, key=priority)[self._max_active :])
        for stored in self.clips:
            rows = [row for row, i in enumerate(stored.ids) if i not in excess]
            if len(rows) < len(stored.ids):
                stored.clip, stored.ids = stored.clip.select(rows), [stored.ids[row] for row in rows]
        for i in excess:
            instance = self.instances.pop(i)
            just_begun = instance.num_clips == 1 and instance.last_clip == self.clips[-1].clip.start
            if not just_begun:
                self._retired[i] = instance.probabilities
