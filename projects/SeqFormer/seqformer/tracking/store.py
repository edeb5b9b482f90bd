"""What tracking remembers of a video: the last clips, and the instances that can still be continued."""

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
        clip: its N instances.
        ids: theirs.
    """

    clip: ClipInstances
    ids: list[int]


@dataclass
class Instance:
    """A live instance, which a later clip can continue.

    Attributes:
        total: (K,) class probabilities, summed over the clips that hold it, in their order.
        num_clips: how many clips hold it.
        last_clip: first frame of the last of them.
        clips_since: how many clips came after that one.
        path: where it was in frames that are final; empty without motion.
    """

    total: Tensor
    num_clips: int
    last_clip: int
    clips_since: int = 0
    path: Path = field(default_factory=Path)

    @property
    def probabilities(self) -> Tensor:
        """(K,) mean class probabilities over the clips that hold it."""
        return self.total / self.num_clips


class InstanceStore:
    """The state of clip matching, which does not grow with the video.

    For every clip, in order: a strategy (:func:`seqformer.tracking.assign_by_overlap` or
    :func:`seqformer.tracking.assign_by_motion`) compares it with the store and returns ids, ``add`` stores
    the clip under them, and ``pop_final`` returns the frames that no later clip can change.

    A clip is forgotten once all its frames are final, and after ``length`` later clips in any case: from then
    on it shares no frame with a new one. An instance is live while one of the remaining clips holds it, or,
    with motion, for ``motion.memory`` clips after the last one that stored it. Then it retires: its class
    probabilities are final, and ``pop_retired`` returns them. So there are never more live instances than
    these clips can hold, however many the video has. Ids keep counting up.

    ``max_active`` is a lower limit. When a clip makes more instances live, the least recently seen are dropped;
    among these the least probable, and of equals the latest. A dropped instance loses its masks in frames
    that are not final yet, and if it is seen again it is a new one. If the same clip had begun it, nothing of
    it remains.

    Means are sums in the order of clips divided by their number, for probabilities and for logits.

    Args:
        length: frames in a clip, which is also how many previous clips a new one is compared with.
        max_active: most instances that are live after a clip; 0 for no limit.
        motion: options of the assignment by motion; None without it.

    Attributes:
        clips: the last clips, the oldest first.
        instances: the live instances by id.
        num_final: how many frames are final.
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
        """The next id that no instance has had."""
        self._next_id += 1
        return self._next_id - 1

    def add(self, clip: ClipInstances, ids: Sequence[int | None]) -> None:
        """Stores the next clip.

        Args:
            clip: its N instances.
            ids: theirs; None leaves an instance out.
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
        """Declares that no clip follows: with the last frames every instance retires."""
        self._memory = 0

    def follow(self, end: int) -> None:
        """Extends the paths of instances up to the frame ``end``, before which no mask changes any more."""
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
        """Returns up to ``limit`` frames before ``end`` that were not returned yet; None if there are none.

        Frames before the next clip's start are final; ``end`` must not be later than that.
        """
        start = self.num_final
        end = min(end, start + limit)
        if start >= end:
            return None
        self.follow(end)
        self.num_final = end
        holding = [stored for stored in self.clips if stored.clip.start < end and stored.clip.end > start]
        ids = sorted({i for stored in holding for i in stored.ids})
        row = {i: index for index, i in enumerate(ids)}
        last = self.clips[-1].clip.mask_logits
        logits = last.new_zeros(len(ids), end - start, *last.shape[-2:])
        counts = logits.new_zeros(len(ids), end - start, 1, 1)
        for stored in holding:
            clip = stored.clip
            first, stop = max(start, clip.start), min(end, clip.end)
            rows = [row[i] for i in stored.ids]
            here = slice(first - start, stop - start)
            logits[rows, here] += clip.mask_logits[:, first - clip.start : stop - clip.start]
            counts[rows, here] += 1
        self._retire()
        return FinalFrames(start, ids, logits / counts.clamp(min=1), counts[..., 0, 0] > 0)

    def probabilities(self) -> dict[int, Tensor]:
        """Mean class probabilities (K,) so far, by id, of live instances and of those not yet popped."""
        live = {i: instance.probabilities for i, instance in self.instances.items()}
        return dict(sorted({**self._retired, **live}.items()))

    def pop_retired(self) -> dict[int, Tensor]:
        """Final mean class probabilities (K,), by id, of instances that retired since the last call."""
        retired, self._retired = self._retired, {}
        return dict(sorted(retired.items()))

    def state(self) -> dict[str, Any]:
        """What is remembered, for ``restore``: tensors, numbers, lists and dicts, which ``torch.save`` takes.

        ``torch.load`` reads it with ``weights_only=True``.
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
        """Continues from ``state``.

        Raises:
            KeyError, TypeError: if it is not a state.
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
        """Forgets clips whose frames are all final, and instances that cannot be continued any more."""
        while self.clips and self.clips[0].clip.end <= self.num_final:
            self.clips.popleft()
        stored = {i for clip in self.clips for i in clip.ids}
        for i, instance in list(self.instances.items()):
            if i not in stored and instance.clips_since >= self._memory:
                self._retired[i] = self.instances.pop(i).probabilities

    def _drop_excess(self) -> None:
        """Takes the instances beyond ``max_active`` out of all clips."""

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
