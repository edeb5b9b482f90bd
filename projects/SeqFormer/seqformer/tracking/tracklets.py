"""Builds tracklets from the results of frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from seqformer.structures import RLE, FrameResult, Tracklet, VideoResult

__all__ = ["TrackletBuilder", "best_results"]


def best_results(
    results: Iterable[tuple[int, int, float]], limit: int | None
) -> list[tuple[int, int, float]]:
    """Sorts and limits the results (instance, class, score) of a video.

    Args:
        results: in any order.
        limit: number of best results to return, those of the best instance first; None for all, in order of
            first appearance and class.
    """
    if limit is None:
        return sorted(results, key=lambda r: r[:2])
    best = sorted(results, key=lambda r: (-r[2], r[0], r[1]))[:limit]
    order = {instance: rank for rank, (instance, _, _) in reversed(list(enumerate(best)))}
    return sorted(best, key=lambda r: order[r[0]])


class TrackletBuilder:
    """Builds the tracklets of a video from the results of its frames.

    ``result`` can be called at any time. Masks of an instance that ends without a result are dropped.

    Args:
        limit: maximum number of tracklets of the video; see :func:`best_results`.
        class_names: names by label; classes without a name are numbered.
        keep_empty: whether instances without a mask in any frame become tracklets.

    Examples:
        >>> tracklets = TrackletBuilder()
        >>> for frame in frames:
        ...     tracklets.add(stream.push(frame))
        >>> tracklets.add(stream.finish())
        >>> result = tracklets.result(stream.size)
    """

    def __init__(
        self, limit: int | None = None, class_names: Sequence[str] = (), *, keep_empty: bool = False
    ):
        self._limit = limit
        self._keep_empty = keep_empty
        self._class_names = class_names
        self._length = 0
        self._masks: dict[int, dict[int, RLE]] = {}  # by instance and frame
        self._scores: dict[int, list[tuple[int, float]]] = {}  # by instance: classes and their scores

    def add(self, frames: Iterable[FrameResult]) -> None:
        """Adds the next frames."""
        for frame in frames:
            self._length = frame.index + 1
            for instance in frame.instances:
                self._masks.setdefault(instance.instance_id, {})[frame.index] = instance.mask
                self._scores[instance.instance_id] = [(instance.label, instance.score)]
            for ended in frame.ended:
                if ended.scores:
                    self._scores[ended.instance_id] = ended.scores
                else:
                    self._scores.pop(ended.instance_id, None)
                    self._masks.pop(ended.instance_id, None)

    def result(self, size: tuple[int, int]) -> VideoResult:
        """Returns the tracklets of the frames so far.

        An ended instance has one tracklet per resulting class. An instance that has not ended has one
        tracklet, with its current class and score.

        Args:
            size: height and width of the frames, pixels.
        """
        return VideoResult(*size, self._length, list(self.tracklets(size)))

    def tracklets(self, size: tuple[int, int]) -> Iterator[Tracklet]:
        """Yields the same tracklets one at a time, to save memory: each has a list as long as the video."""
        results = [(i, label, score) for i, scores in self._scores.items() for label, score in scores]
        segmentations: dict[int, list[RLE | None]] = {}
        for i, label, score in best_results(results, self._limit):
            if not self._keep_empty and not self._masks.get(i):
                continue
            if i not in segmentations:
                segmentations.clear()  # earlier instances do not come again
                masks = self._masks.get(i, {})
                segmentations[i] = [masks.get(t) for t in range(self._length)]
            yield Tracklet(i, label, score, segmentations[i], self._name(label), size)

    def _name(self, label: int) -> str:
        return self._class_names[label] if label < len(self._class_names) else f"class {label}"
