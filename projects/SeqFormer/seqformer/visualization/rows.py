"""Rows of figures: the instances of a method, or of the ground truth, in one video."""

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
from seqformer.structures import RLE, Trace, VideoResult
from seqformer.visualization.visualizer import Box, visible_parts

__all__ = [
    "Row",
    "ShownInstance",
    "check_threshold",
    "difference_boxes",
    "ground_truth_row",
    "match_colors",
    "read_results_row",
    "read_rows",
    "result_row",
    "trace_row",
]

_IOU_THRESHOLD = 0.1  # space-time; low, so that a fragment keeps the colour of its instance
_OPENING = 60  # differences thinner than the short side divided by this are outlines, and ignored


@dataclass
class ShownInstance:
    """An instance to draw in a figure.

    Attributes:
        instance_id: determines the colour.
        score: None for ground truth.
        masks: T masks; None in frames without one.
    """

    instance_id: int
    label: str
    score: float | None
    masks: list[RLE | None]

    @property
    def rank(self) -> float:
        """The score, which determines the drawing order; 1 for ground truth."""
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

    def visible(self, frame: int) -> list[ShownInstance]:
        """Returns the instances with a mask in a frame, lowest score first."""
        present = [instance for instance in self.instances if instance.masks[frame] is not None]
        return sorted(present, key=lambda instance: instance.rank)

    def id_map(self, frame: int, size: tuple[int, int]) -> np.ndarray:
        """Returns the ids (H, W) int64 of the topmost instances in a frame; -1 where there is none."""
        visible = self.visible(frame)
        ids = np.array([*(instance.instance_id for instance in visible), -1])
        masks = np.zeros((len(visible), *size), dtype=bool)
        for mask, instance in zip(masks, visible, strict=True):
            mask[:] = instance.mask(frame)
        return ids[visible_parts(masks, range(len(visible)))]


def check_threshold(threshold: float) -> None:
    """Raises InputError unless ``threshold`` is from 0 to 1."""
    if not 0 <= threshold <= 1:
        raise InputError(f"`threshold` {threshold}: must be from 0 to 1")


def result_row(name: str, result: VideoResult, class_names: Sequence[str], threshold: float) -> Row:
    """Returns a row of predicted instances, each with its best class, if the score reaches the threshold."""
    return Row(
        name,
        [
            ShownInstance(t.instance_id, class_names[t.label], t.score, t.segmentations)
            for t in result.best_tracklets(threshold)
        ],
    )


def trace_row(name: str, trace: Trace, class_names: Sequence[str], instances: Sequence[int]) -> Row:
    """Returns a row of instances of a trace that has masks.

    Raises:
        InputError: if an instance does not exist.
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
    """Returns a row of the annotated instances of a video, without crowds; None without annotations."""
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
    """Reads the results of one video from a results.json, as a row.

    Results with equal masks are one instance with several classes; the best class is drawn. Ids number the
    instances of the file whatever the threshold, so the threshold does not change colours.

    Args:
        name: name of the method.
        path: the file.
        video: the video's id, size and length.
        class_names: names by category id; classes without a name are numbered.
        threshold: instances with lower scores are dropped.
        videos: all videos of the dataset, if known; then there may be no results for this one.

    Raises:
        InputError: if the file is malformed, is for a different video, or its masks do not match the frames.
    """
    results = best_categories(read_results(path, videos or {video.id: video}, video_id=video.id))
    instances = [
        ShownInstance(id_, class_names.get(r.category, f"class {r.category}"), r.score, r.masks)
        for id_, r in enumerate(results)
    ]
    return Row(name, [instance for instance in instances if instance.rank >= threshold])


def match_colors(rows: Sequence[Row]) -> None:
    """Gives the same instance the same id in all rows, in place.

    Each row is matched with the instances of earlier rows, one to one for the highest sum of space-time IoU.
    An instance without a match gets a new id.
    """
    known: list[ShownInstance] = []
    for row in rows:
        overlaps = space_time_iou([i.masks for i in row.instances], [k.masks for k in known])
        matched = {
            int(i): known[k].instance_id
            for i, k in zip(*linear_sum_assignment(-overlaps), strict=True)
            if overlaps[i, k] >= _IOU_THRESHOLD
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
    """Returns rows for the ground truth of a video, if any, and for several methods, with matched colours.

    Args:
        files: the results.json of each method, by name.
        video: the video's id, size and length.
        dataset: the dataset it belongs to, if any.
        threshold: minimum score of the instances to draw.

    Raises:
        InputError: if results cannot be read or are for a different video.
    """
    truth = None if dataset is None else ground_truth_row(dataset, video)
    rows = [] if truth is None else [truth]
    names, videos = (dataset.names, dataset.videos) if dataset else ({}, None)
    for name, path in files.items():
        rows.append(read_results_row(name, path, video, names, threshold, videos))
    match_colors(rows)
    return rows


def difference_boxes(first: np.ndarray, other: np.ndarray) -> list[Box]:
    """Returns boxes around the differences of two id maps, except differences at outlines.

    Args:
        first, other: (H, W) ids, from :meth:`Row.id_map`.

    Returns:
        Boxes in pixels that do not overlap.
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
    """Merges overlapping boxes, and clips them to the frame."""
    merged: list[Box] = []
    for box in boxes:
        while crossing := [other for other in merged if box.overlap(other)]:
            together = np.array([box, *crossing])
            merged = [other for other in merged if other not in crossing]
            box = Box(*together[:, :2].min(0).tolist(), *together[:, 2:].max(0).tolist())
        merged.append(box)
    height, width = size
    return [Box(max(b.left, 0), max(b.top, 0), min(b.right, width), min(b.bottom, height)) for b in merged]
