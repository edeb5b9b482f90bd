"""Slow, readable versions of clip matching by overlap and by motion, and random problems for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from seqformer.tracking import ClipInstances, InstanceStore, MotionOptions


class Tracker:
    """A store and its strategy, used as in inference."""

    def __init__(self, store: InstanceStore, assign: Callable[..., Sequence[int | None]]):
        self.store = store
        self._assign = assign

    def update(self, clip: ClipInstances) -> list[int | None]:
        ids = self._assign(self.store, clip)
        self.store.add(clip, ids)
        return list(ids)


def clip_starts(num_frames: int, length: int, stride: int) -> list[int]:
    """Returns the first frame of each clip. The last clip is shifted to end with the video."""
    starts = []
    start = 0
    while start + length < num_frames:
        starts.append(start)
        start += stride
    return [*starts, max(num_frames - length, 0)]


def readable_matching(clips: list[ClipInstances], length: int, num_frames: int, max_active: int = 0):
    """Matches clips with the whole video in memory, one instance, clip and frame at a time.

    Returns mean class probabilities and, by instance and frame, mean logits, in order of appearance. A mean
    is the sum in order of clips, divided by their number.
    """
    memory: list[list[int]] = []  # ids of every clip's instances
    instances: list[list[tuple[int, int]]] = []  # by id: clips and rows
    ends: dict[int, int] = {}  # by id dropped due to ``max_active``: the first frame without it

    def classes_of(i: int) -> torch.Tensor:
        return in_order([clips[c].class_probabilities[j] for c, j in instances[i]])

    for number, clip in enumerate(clips):
        new = clip.mask_logits.sigmoid().double()
        previous = range(max(number - length, 0), number)
        similarity = np.zeros((len(instances), len(new)))
        for i, j in np.ndindex(*similarity.shape):
            values = []
            for p in previous:
                overlap = [f for f in range(clip.start, clip.end) if clips[p].start <= f < clips[p].end]
                if not overlap or i not in memory[p] or i in ends:
                    continue
                row = memory[p].index(i)
                intersection = union = 0.0
                for f in overlap:
                    a = clips[p].mask_logits[row, f - clips[p].start].sigmoid().double()
                    b = new[j, f - clip.start]
                    intersection += (a * b).sum().item()
                    union += (a + b - a * b).sum().item()
                values.append(intersection / (union + 1e-6))
            similarity[i, j] = np.mean(values) if values else 0.0
        ids = [-1] * len(new)
        for i, j in zip(*linear_sum_assignment(-similarity), strict=True):
            if similarity[i, j] > 0.01:
                ids[j] = int(i)
        for j, i in enumerate(ids):
            if i < 0:
                ids[j] = len(instances)
                instances.append([])
            instances[ids[j]].append((number, j))
        memory.append(ids)
        if max_active:
            final_end = clips[number - 1].start + 1 if number else 0
            last_visible = {
                i: p
                for p in range(max(number - length + 1, 0), number + 1)
                if clips[p].end > final_end
                for i in memory[p]
                if i not in ends
            }
            ranked = sorted(last_visible, key=lambda i: (-last_visible[i], -float(classes_of(i).max()), i))
            ends.update(dict.fromkeys(ranked[max_active:], final_end))
    classes, logits = {}, {}
    for i, positions in enumerate(instances):
        if i in ends and clips[positions[0][0]].start >= ends[i]:
            continue  # added and dropped by the same clip
        classes[i] = classes_of(i)
        for f in range(ends.get(i, num_frames)):
            here = [
                clips[c].mask_logits[j, f - clips[c].start]
                for c, j in positions
                if clips[c].start <= f < clips[c].end
            ]
            if here:
                logits[i, f] = in_order(here)
    return classes, logits


def in_order(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Returns the mean, summed from first to last."""
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total / len(tensors)


def make_clips(
    seed: int, num_frames: int, length: int, stride: int, gap: range = range(0), vanished: int = 0
) -> list[ClipInstances]:
    """Makes clips of five moving squares; each clip contains some of them, in any order, with noise.

    Clips in ``gap`` do not contain the first ``vanished`` squares.
    """
    generator = torch.Generator().manual_seed(seed)
    size, objects = 16, 5
    place = torch.rand(objects, 2, generator=generator) * 10
    speed = torch.rand(objects, 2, generator=generator) - 0.5
    clips = []
    for number, start in enumerate(clip_starts(num_frames, length, stride)):
        end = min(start + length, num_frames)
        visible = torch.randperm(objects, generator=generator)[
            : torch.randint(1, objects + 1, (1,), generator=generator)
        ]
        if number in gap:
            visible = visible[visible >= vanished]
        masks = torch.full((len(visible), end - start, size, size), -6.0)
        for row, o in enumerate(visible.tolist()):
            for t in range(start, end):
                x, y = (place[o] + speed[o] * t).clamp(0, size - 5).int().tolist()
                masks[row, t - start, y : y + 5, x : x + 5] = 6.0
        masks += torch.randn(masks.shape, generator=generator)
        clips.append(ClipInstances(start, torch.rand(len(visible), 3, generator=generator), masks))
    return clips


def readable_motion(
    clips: list[ClipInstances], length: int, options: MotionOptions, duplicate_iou: float, limit: int
) -> list[list[int | None]]:
    """Returns ids of every clip's instances by overlap and motion, computed one pair at a time.

    Frames become final as soon as possible.
    """
    assigned: list[list[int | None]] = []
    next_id = 0
    for number, clip in enumerate(clips):
        history = _History(clips[:number], assigned, length, options)
        best = [float(p.max()) for p in clip.class_probabilities]
        rows = [j for j in range(len(clip)) if best[j] >= options.least_probability]
        masks = [(m > 0).double().numpy() for m in clip.mask_logits]
        ids: list[int | None] = [None] * len(clip)

        # 1. Continue known instances that share frames with the clip.
        known = history.sharing(clip.start)
        gain = np.zeros((len(known), len(rows)))
        for a, i in enumerate(known):
            for b, j in enumerate(rows):
                similarity = history.similarity(i, clip, j)
                if similarity > options.least_similarity:
                    gain[a, b] = similarity + options.probability_weight * best[j]
        pairs = [
            (known[a], rows[b]) for a, b in zip(*linear_sum_assignment(-gain), strict=True) if gain[a, b] > 0
        ]
        for i, j in sorted(pairs, key=lambda pair: (-len(history.clips_of(pair[0])), pair[0])):
            continued = [other for other in range(len(clip)) if ids[other] is not None]
            if all(hard_iou(masks[j], masks[other]) <= options.same_iou for other in continued):
                ids[j] = i

        # 2. Of the rest, keep those that are not duplicates.
        kept = [j for j in rows if ids[j] is not None]
        begun = []
        for j in sorted(set(rows) - set(kept), key=lambda j: (-best[j], j)):
            if len(kept) < limit and all(hard_iou(masks[j], masks[other]) <= duplicate_iou for other in kept):
                kept.append(j)
                begun.append(j)

        # 3. Assign a lost instance if its motion leads there, otherwise a new one.
        lost = [i for i in history.live() if i not in ids]
        closeness = np.zeros((len(lost), len(begun)))
        for a, i in enumerate(lost):
            for b, j in enumerate(begun):
                closeness[a, b] = max(0.0, 1 - history.distance(i, clip, j) / options.search_radius)
        for a, b in zip(*linear_sum_assignment(-closeness), strict=True):
            if closeness[a, b] > 0:
                ids[begun[b]] = lost[a]
        for j in begun:
            if ids[j] is None:
                ids[j] = next_id
                next_id += 1
        assigned.append(ids)
    return assigned


def hard_iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a * b).sum() / ((a + b - a * b).sum() + 1e-6)


class _History:
    """The state before the next clip."""

    def __init__(
        self,
        clips: list[ClipInstances],
        assigned: list[list[int | None]],
        length: int,
        options: MotionOptions,
    ):
        self.clips = clips
        self.assigned = assigned
        self.length = length
        self.options = options

    def clips_of(self, i: int) -> list[int]:
        """Returns the numbers of clips that contain an instance."""
        return [number for number, ids in enumerate(self.assigned) if i in ids]

    def sharing(self, start: int) -> list[int]:
        """Returns the instances in those of the last clips that contain the frame ``start``."""
        recent = range(max(len(self.clips) - self.length, 0), len(self.clips))
        sharing = [number for number in recent if self.clips[number].end > start]
        return sorted({i for number in sharing for i in self.assigned[number] if i is not None})

    def live(self) -> list[int]:
        """Returns instances in clips with frames that are not final, or that were visible recently."""
        if not self.clips:
            return []
        unfinished = self.sharing(self.clips[-1].start + 1)
        everyone = {i for ids in self.assigned for i in ids if i is not None}
        last = len(self.clips) - 1
        recent = [i for i in everyone if last - self.clips_of(i)[-1] < self.options.memory]
        return sorted({*unfinished, *recent})

    def similarity(self, i: int, clip: ClipInstances, row: int) -> float:
        overlaps = []
        for number in range(max(len(self.clips) - self.length, 0), len(self.clips)):
            before = self.clips[number]
            if i in self.assigned[number] and before.end > clip.start:
                a = before.mask_logits[self.assigned[number].index(i)].double().sigmoid().numpy()
                b = clip.mask_logits[row].double().sigmoid().numpy()
                shared = range(clip.start, before.end)
                pairs = [(a[f - before.start], b[f - clip.start]) for f in shared]
                overlaps.append(soft_iou_of(pairs))
        overlap = float(np.mean(overlaps)) if overlaps else 0.0
        points, mask = self.path(i, clip.start)
        if mask is None:
            return overlap
        pairs = []
        for f in range(clip.start, clip.end):
            x, y = (round(v * (f - points[-1][0])) for v in velocity(points))
            probabilities = clip.mask_logits[row, f - clip.start].double().sigmoid().numpy()
            pairs.append((blurred(moved(mask, x, y)), blurred(probabilities)))
        return self.options.weight * soft_iou_of(pairs) + (1 - self.options.weight) * overlap

    def path(self, i: int, end: int) -> tuple[list[tuple[float, float, float]], np.ndarray | None]:
        """Returns centres and the last mask of an instance in frames before ``end``."""
        masks = {}
        for f in range(end):
            logits = [
                self.clips[number].mask_logits[self.assigned[number].index(i), f - self.clips[number].start]
                for number in self.clips_of(i)
                if self.clips[number].start <= f < self.clips[number].end
            ]
            if logits:
                masks[f] = torch.stack(logits).double().mean(0).sigmoid().numpy()
        return self.points(masks)

    def points(
        self, masks: dict[int, np.ndarray]
    ) -> tuple[list[tuple[float, float, float]], np.ndarray | None]:
        visible = {f: m for f, m in masks.items() if (m > 0.5).sum() >= self.options.least_cells}
        points = []
        for f, mask in visible.items():
            rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]]
            points.append((f, (mask * columns).sum() / mask.sum(), (mask * rows).sum() / mask.sum()))
        if not points:
            return [], None
        last = points[-1][0]
        return [p for p in points if p[0] >= last - self.options.window], visible[last]

    def distance(self, i: int, clip: ClipInstances, row: int) -> float:
        points, mask = self.path(i, clip.start)
        probabilities = clip.mask_logits[row].double().sigmoid().numpy()
        begin, begin_mask = self.points(dict(enumerate(probabilities, start=clip.start)))
        if mask is None or begin_mask is None:
            return float("inf")
        vx, vy = velocity(points)
        frame, x, y = points[-1]
        first, to_x, to_y = begin[0]
        steps = first - frame
        away = np.hypot(x + vx * steps - to_x, y + vy * steps - to_y)
        return away / max(extent(mask), extent(begin_mask))


def soft_iou_of(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    intersection = sum((a * b).sum() for a, b in pairs)
    return intersection / (sum((a + b - a * b).sum() for a, b in pairs) + 1e-6)


def velocity(points: list[tuple[float, float, float]]) -> tuple[float, float]:
    """Returns the slopes of straight lines fitted to x and y by NumPy."""
    if len(points) < 3:
        return 0.0, 0.0
    t, x, y = zip(*points, strict=True)
    return float(np.polyfit(t, x, 1)[0]), float(np.polyfit(t, y, 1)[0])


def moved(mask: np.ndarray, dx: int, dy: int) -> np.ndarray:
    result = np.zeros_like(mask)
    for y, x in np.ndindex(*mask.shape):
        if 0 <= y - dy < mask.shape[0] and 0 <= x - dx < mask.shape[1]:
            result[y, x] = mask[y - dy, x - dx]
    return result


def blurred(mask: np.ndarray) -> np.ndarray:
    padded = np.pad(mask, 1)
    height, width = mask.shape
    return sum(padded[y : y + height, x : x + width] for y in range(3) for x in range(3)) / 9


def extent(mask: np.ndarray) -> int:
    sides = [np.flatnonzero((mask > 0.5).any(axis)) for axis in (0, 1)]
    return max(side[-1] - side[0] + 1 for side in sides)
