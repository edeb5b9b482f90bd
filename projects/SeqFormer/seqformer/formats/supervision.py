"""supervision: tracklets as its Detections, frame by frame, and back.

The package is imported when it is needed.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools import mask as mask_api

from seqformer.errors import InputError
from seqformer.formats.rle import encode_masks
from seqformer.structures import RLE, Tracklet

if TYPE_CHECKING:
    import supervision as sv

__all__ = ["from_detections", "to_detections"]

_NAME = "class_name"  # the key of class names in Detections.data
_NOT_TRACKED = -1  # tracker_id of a detection that no tracker has taken


def _supervision() -> Any:
    try:
        return importlib.import_module("supervision")
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed: pip install supervision") from None


def to_detections(tracklets: Sequence[Tracklet], size: tuple[int, int], t: int) -> sv.Detections:
    """Returns the visible tracklets of frame ``t``; see :meth:`VideoPrediction.to_supervision`.

    Args:
        tracklets: the tracklets, one for each instance.
        size: height and width of the frames, pixels.
        t: index of the frame.

    Raises:
        InputError: if supervision is not installed.
    """
    supervision = _supervision()
    visible = [tracklet for tracklet in tracklets if tracklet.segmentations[t] is not None]
    rles = [tracklet.segmentations[t] for tracklet in visible]
    xywh = mask_api.toBbox(rles) if rles else np.empty((0, 4))
    boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    if hasattr(supervision, "CompactMask"):
        masks = supervision.CompactMask.from_coco_rle(rles, boxes, size)
    else:
        masks = mask_api.decode(rles).transpose(2, 0, 1) > 0 if rles else np.empty((0, *size), dtype=bool)
    return supervision.Detections(
        xyxy=boxes,
        mask=masks,
        confidence=np.asarray([tracklet.score for tracklet in visible], dtype=np.float64),
        class_id=np.asarray([tracklet.label for tracklet in visible], dtype=np.int64),
        tracker_id=np.asarray([tracklet.instance_id for tracklet in visible], dtype=np.int64),
        data={_NAME: np.asarray([tracklet.class_name for tracklet in visible], dtype=str)},
    )


def from_detections(detections: Iterable[sv.Detections], size: tuple[int, int]) -> tuple[list[Tracklet], int]:
    """Returns the tracklets of a video; see :meth:`VideoPrediction.from_supervision`.

    Args:
        detections: those of each frame, with masks and tracker ids.
        size: height and width of the frames, pixels.

    Returns:
        The tracklets in order of first appearance, and the number of frames, T.

    Raises:
        InputError: if masks or tracker ids are missing, a mask has a different size, or a tracker id appears
            twice in a frame.
    """
    masks: dict[int, dict[int, RLE]] = {}  # by tracker id and frame
    scores: dict[int, list[float]] = {}
    classes: dict[int, dict[int, float]] = {}  # sums of scores by tracker id and class
    names: dict[int, str] = {}
    length = 0
    for t, frame in enumerate(detections):
        length += 1
        if not len(frame):
            continue
        dense, ids = _check(frame, size, t)
        for i, id_ in enumerate(ids):
            (rle,) = [None] if id_ == _NOT_TRACKED else encode_masks(np.asarray(dense[i], dtype=bool)[None])
            if rle is None:
                continue
            if t in masks.setdefault(id_, {}):
                raise InputError(f"frame {t}: two detections have the tracker id {id_}")
            masks[id_][t] = rle
            score, label = float(_item(frame.confidence, i, 1.0)), int(_item(frame.class_id, i, 0))
            scores.setdefault(id_, []).append(score)
            sums = classes.setdefault(id_, {})
            sums[label] = sums.get(label, 0.0) + score
            names.setdefault(label, str(_item(frame.data.get(_NAME), i, "")))
    tracklets = []
    for id_, seen in masks.items():
        label = max(classes[id_], key=classes[id_].__getitem__)
        # Clipping makes the mean of equal numbers exactly that number.
        score = float(np.clip(np.mean(scores[id_]), min(scores[id_]), max(scores[id_])))
        segmentations = [seen.get(t) for t in range(length)]
        tracklets.append(Tracklet(id_, label, score, segmentations, names[label], size))
    return tracklets, length


def _item(values: Any, index: int, default: Any) -> Any:
    return default if values is None else values[index]


def _check(frame: sv.Detections, size: tuple[int, int], t: int) -> tuple[Any, list[int]]:
    """Returns masks and tracker ids of a frame."""
    if frame.mask is None:
        raise InputError(f"frame {t}: the detections have no masks")
    if frame.tracker_id is None:
        raise InputError(f"frame {t}: the detections have no tracker ids: run a tracker on them first")
    if tuple(frame.mask.shape[1:]) != tuple(size):
        height, width = frame.mask.shape[1:]
        raise InputError(
            f"frame {t}: the masks are {width}x{height} pixels, not {size[1]}x{size[0]} as `size`"
        )
    return frame.mask, [int(id_) for id_ in frame.tracker_id]
