"""What a row of a figure shows: the instances of one method, or of the ground truth, in one video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from seqformer.errors import InputError
from seqformer.formats.results import best_categories, read_results
from seqformer.formats.rle import decode_mask, space_time_iou
from seqformer.formats.ytvis import Dataset, Video
from seqformer.structures import RLE, Trace, Tracklet, VideoResult
from seqformer.visualization.visualizer import Box, visible_parts

__all__ = [
    "Row",
    "ShownInstance",
    "best_tracklets",
    "check_threshold",
    "difference_boxes",
    "ground_truth_row",
    "match_colors",
    "read_results_row",
    "read_rows",
    "result_row",
    "trace_row",
]

_SAME_INSTANCE = 0.1  # least space-time IoU: a fragment keeps the colour of what it is a fragment of
_OPENING = 60  # differences thinner than the short side over this are those of outlines, and not marked


@dataclass
class ShownInstance:
    """An instance as figures show it.

    Attributes:
        instance_id: fixes the colour.
        score: None for ground truth.
        masks: T masks; None where there is none.
    """

    instance_id: int
    label: str
    score: float | None
    masks: list[RLE | None]

    @property
    def rank(self) -> float:
        """What decides who is on top; ground truth has no scores."""
        return 1.0 if self.score is None else self.score

    def mask(self, frame: int) -> np.ndarray:
        """The mask (H, W) in a frame where the instance is visible, uint8, 0 or 1."""
        rle = self.masks[frame]
        assert rle is not None, f"instance {self.instance_id} is not visible in frame {frame}"
        return decode_mask(rle)


@dataclass
class Row:
    """The instances of one method in one video."""

    name: str
    instances: list[ShownInstance]

    def seen(self, frame: int) -> list[ShownInstance]:
        """Instances with a mask in a frame, the lowest score first."""
        present = [instance for instance in self.instances if instance.masks[frame] is not None]
        return sorted(present, key=lambda instance: instance.rank)

    def id_map(self, frame: int, size: tuple[int, int]) -> np.ndarray:
        """(H, W) int64 ids of the topmost instances in a frame; -1 where there is none."""
        seen = self.seen(frame)
        ids = np.array([*(instance.instance_id for instance in seen), -1])
        masks = np.zeros((len(seen), *size), dtype=bool)
        for mask, instance in zip(masks, seen, strict=True):
            mask[:] = instance.mask(frame)
        return ids[visible_parts(masks, range(len(seen)))]


def check_threshold(threshold: float) -> None:
    """Raises InputError if a minimum score is not from 0 to 1."""
    if not 0 <= threshold <= 1:
        raise InputError(f"`threshold` {threshold}: give a score from 0 to 1")


def best_tracklets(result: VideoResult, threshold: float = 0.0) -> list[Tracklet]:
    """Every instance under its best class, if its score reaches the threshold."""
    best: dict[int, Tracklet] = {}
    for tracklet in sorted(result.tracklets, key=lambda tracklet: tracklet.score):
        best[tracklet.instance_id] = tracklet
    return [tracklet for tracklet in best.values() if tracklet.score >= threshold]


def result_row(name: str, result: VideoResult, class_names: Sequence[str], threshold: float) -> Row:
    """What a predictor found: every instance under its best class, if its score reaches the threshold."""
    return Row(
        name,
        [
            ShownInstance(t.instance_id, class_names[t.label], t.score, t.segmentations)
            for t in best_tracklets(result, threshold)
        ],
    )


def trace_row(name: str, trace: Trace, class_names: Sequence[str], instances: Sequence[int]) -> Row:
    """Instances of a trace with masks.

    Raises:
        InputError: if there is no such instance.
    """
    for instance in instances:
        trace.check_instance(instance)
    assert trace.segmentations is not None, "the trace must have masks"
    labels, scores = trace.labels, trace.scores
    return Row(
        name,
        [
            ShownInstance(i, class_names[labels[i]], float(scores[i]), trace.segmentations[i])
            for i in instances
        ],
    )


def ground_truth_row(dataset: Dataset, video: Video) -> Row | None:
    """The annotated instances of a video, without crowds; None if the dataset has no annotations."""
    if dataset.annotations is None:
        return None
    annotations = [a for a in dataset.annotations if a.video.id == video.id and not a.crowd]
    return Row(
        "ground truth",
        [ShownInstance(i, dataset.names[a.category], None, a.masks) for i, a in enumerate(annotations)],
    )


def read_results_row(
    name: str,
    path: str | Path,
    video: Video,
    class_names: Mapping[int, str],
    threshold: float,
    videos: Mapping[int, Video] | None = None,
) -> Row:
    """One video of a results.json, of any method.

    Results with equal masks are one instance under several classes; the best class is shown. Ids count the
    instances of the file, whatever the threshold, so it does not change colours.

    Args:
        name: of the method.
        path: the file.
        video: the video's id, size and length.
        class_names: by category id; classes without a name are numbered.
        threshold: instances below are left out.
        videos: all videos of the dataset, if it is known: then a method may have found nothing in this one.

    Raises:
        InputError: if it is no results file, of another video, or its masks do not fit the frames.
    """
    results = best_categories(read_results(path, videos or {video.id: video}, video_id=video.id))
    instances = [
        ShownInstance(id_, class_names.get(r.category, f"class {r.category}"), r.score, r.masks)
        for id_, r in enumerate(results)
    ]
    return Row(name, [instance for instance in instances if instance.rank >= threshold])


def match_colors(rows: Sequence[Row]) -> None:
    """Gives instances of later rows the ids of those that they are in earlier ones, in place.

    Every row is matched with all instances known so far by space-time IoU, one to one for the highest sum.
    An instance that overlaps none gets an id of its own.
    """
    known: list[ShownInstance] = []
    for row in rows:
        overlaps = space_time_iou([i.masks for i in row.instances], [k.masks for k in known])
        matched = {
            int(i): known[k].instance_id
            for i, k in zip(*linear_sum_assignment(-overlaps), strict=True)
            if overlaps[i, k] >= _SAME_INSTANCE
        }
        if not known:
            known = list(row.instances)
            continue
        for index, instance in enumerate(row.instances):
            if index in matched:
                instance.instance_id = matched[index]
            else:
                instance.instance_id = 1 + max(k.instance_id for k in known)
                known.append(instance)


def read_rows(
    files: Mapping[str, str | Path], video: Video, dataset: Dataset | None, threshold: float
) -> list[Row]:
    """The ground truth of a video, if there is one, and the results of several methods, colours matched.

    Args:
        files: a results.json of each method, by the method's name.
        video: the video's id, size and length.
        dataset: the dataset it belongs to, if there is one.
        threshold: minimum score of instances that are shown.

    Raises:
        InputError: if results cannot be read or are not on this video.
    """
    truth = None if dataset is None else ground_truth_row(dataset, video)
    rows = [] if truth is None else [truth]
    names, videos = (dataset.names, dataset.videos) if dataset else ({}, None)
    for name, path in files.items():
        rows.append(read_results_row(name, path, video, names, threshold, videos))
    match_colors(rows)
    return rows


def difference_boxes(first: np.ndarray, other: np.ndarray) -> list[Box]:
    """Where two pictures of ids differ by more than outlines.

    Args:
        first, other: (H, W) ids, as :meth:`Row.id_map` gives them.

    Returns:
        boxes in pixels, around each difference, none inside or across another.
    """
    short = min(first.shape)
    side = max(3, round(short / _OPENING))
    different = cv2.morphologyEx(
        (first != other).astype(np.uint8), cv2.MORPH_OPEN, np.ones((side, side), np.uint8)
    )
    count, _, stats, _ = cv2.connectedComponentsWithStats(different, connectivity=8)
    boxes = []
    for left, top, width, height in stats[1:count, :4].tolist():
        boxes.append(Box(left - side, top - side, left + width + side, top + height + side))
    return _merge(boxes, first.shape)


def _merge(boxes: list[Box], size: tuple[int, int]) -> list[Box]:
    """Boxes that overlap become one; all are cut off at the frame."""
    merged: list[Box] = []
    for box in boxes:
        while crossing := [other for other in merged if box.overlap(other)]:
            together = np.array([box, *crossing])
            merged = [other for other in merged if other not in crossing]
            box = Box(*together[:, :2].min(0).tolist(), *together[:, 2:].max(0).tolist())
        merged.append(box)
    height, width = size
    return [Box(max(b.left, 0), max(b.top, 0), min(b.right, width), min(b.bottom, height)) for b in merged]
