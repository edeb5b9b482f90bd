"""The data of a page: instances, outlines and traces, in a few compressed arrays."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from seqformer.formats.rle import decode_mask
from seqformer.inference.clip_traces import ClipTracer, InstanceTrace
from seqformer.structures import RLE, Tracklet
from seqformer.visualization.visualizer import instance_color

__all__ = ["PageData", "fit_points", "mask_outline", "page_data"]

_COORDINATES = (-1.0, 2.0)  # normalised; points outside are clipped
_UINT16_MAX = 65535
_SIMPLER = 0.6  # tolerance of simplified outlines, pixels
_POINT_BYTES = 5  # x, y: uint16; weight: uint8
_FEWEST_POINTS = 8


@dataclass(frozen=True)
class PageData:
    """Arrays for the page's script.

    Attributes:
        description: names and numbers for the script, stored as JSON.
        arrays: all arrays joined, gzipped and base64-encoded; ``description["arrays"]`` has their offsets.
    """

    description: dict[str, Any]
    arrays: str


def fit_points(tracer: ClipTracer, tracklets: Sequence[Tracklet], max_bytes: int) -> int:
    """Returns how many sampling points per instance, frame and layer fit into ``max_bytes``; at least 8."""
    ids = {tracklet.instance_id for tracklet in tracklets}
    places = sum(len(trace.points) for frame in tracer.frames for i, trace in frame.items() if i in ids)
    available = tracer.num_points or _FEWEST_POINTS
    return min(available, max(_FEWEST_POINTS, max_bytes // (_POINT_BYTES * max(places, 1))))


def mask_outline(mask: np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
    """Returns the outlines (n, 2) of a mask (H, W), holes included, xy in half pixels at ``size``."""
    height, width = size
    doubled = cv2.resize(
        mask.astype(np.uint8), (2 * width, 2 * height), interpolation=cv2.INTER_NEAREST_EXACT
    )
    outlines, _ = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    simpler = (cv2.approxPolyDP(outline, 2 * _SIMPLER, True)[:, 0] for outline in outlines)
    return [outline for outline in simpler if len(outline) > 2]


def page_data(
    tracklets: Sequence[Tracklet],
    tracer: ClipTracer,
    class_names: Sequence[str],
    *,
    length: int,
    size: tuple[int, int],
    times: Sequence[float],
    threshold: float,
    floor: float,
    points: int,
) -> PageData:
    """Builds the data for the page's script.

    Args:
        tracklets: one per instance, at the original size of the video.
        tracer: the tracer that observed tracking.
        class_names: names by label.
        length: number of frames.
        size: height and width of the page's video, pixels.
        times: when each frame begins, and when the last one ends, seconds.
        threshold: initial minimum score of visible instances.
        floor: minimum score of the instances in the page.
        points: number of sampling points to keep per instance, frame and layer, highest weights first.
    """
    tracklets = sorted(tracklets, key=lambda tracklet: (-tracklet.score, tracklet.instance_id))
    outlines, outline_first = _outlines(tracklets, length, size)
    arrays, traced = _traces([tracklet.instance_id for tracklet in tracklets], tracer, length, points)
    arrays |= {"outlines": outlines, "outlineFirst": outline_first}
    description = {
        "length": length,
        "height": size[0],
        "width": size[1],
        "times": [round(time, 4) for time in times],
        "threshold": threshold,
        "floor": floor,
        "outOf": tracer.num_points or 0,
        **traced,
        "instances": [
            {
                "id": tracklet.instance_id,
                "label": class_names[tracklet.label],
                "score": round(tracklet.score, 4),
                "color": "#" + "".join(f"{c:02x}" for c in instance_color(tracklet.instance_id)),
            }
            for tracklet in tracklets
        ],
    }
    description["arrays"], packed = _pack(arrays)
    return PageData(description, base64.b64encode(gzip.compress(packed, 9, mtime=0)).decode("ascii"))


def _pack(arrays: dict[str, np.ndarray]) -> tuple[dict[str, dict[str, Any]], bytes]:
    """Joins the arrays, largest item size first, so that all are aligned."""
    places, parts, offset = {}, [], 0
    for name, array in sorted(arrays.items(), key=lambda item: -item[1].itemsize):
        places[name] = {"type": array.dtype.name, "offset": offset, "length": array.size}
        parts.append(array.astype(array.dtype.newbyteorder("<")).tobytes())
        offset += len(parts[-1])
    return places, b"".join(parts)


def _outlines(
    tracklets: Sequence[Tracklet], length: int, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the outlines of all masks in one int16 array, and the start of each (instance, frame) or -1.

    A mask is stored as the number of outlines, and each outline as the number of corners, the first corner
    and the differences to the next ones.
    """
    numbers: list[np.ndarray] = []
    first = np.full((len(tracklets), length), -1, dtype=np.int32)
    count = 0
    for i, tracklet in enumerate(tracklets):
        for t, rle in enumerate(tracklet.segmentations):
            if rle is not None:
                first[i, t] = count
                numbers.append(_outline_numbers(rle, size))
                count += len(numbers[-1])
    return np.concatenate([np.zeros(0, np.int16), *numbers]), first


def _outline_numbers(rle: RLE, size: tuple[int, int]) -> np.ndarray:
    outlines = mask_outline(decode_mask(rle), size)
    parts = [np.array([len(outlines)])]
    for outline in outlines:
        steps = np.diff(outline, axis=0, prepend=np.zeros((1, 2), outline.dtype))
        parts += [np.array([len(outline)]), steps.ravel()]
    return np.concatenate(parts).astype(np.int16)


def _traces(
    ids: Sequence[int], tracer: ClipTracer, length: int, points: int
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns arrays of one record per (instance, frame) that a clip contains, and of their clips."""
    records: list[InstanceTrace] = []
    record = np.full((len(ids), length), -1, dtype=np.int32)
    shares: dict[tuple[int, int], np.ndarray] = {}
    for t, traces in enumerate(tracer.frames[:length]):
        of_instances = tracer.shares(t)
        for i, instance in enumerate(ids):
            if instance in traces:
                record[i, t] = len(records)
                records.append(traces[instance])
                shares[i, t] = of_instances[instance]
    clips = {id(trace.clip): trace.clip for trace in records}
    order = {key: n for n, key in enumerate(clips)}
    lengths = [clip.weights.shape[1] for clip in clips.values()]
    layers = len(records[0].boxes) if records else 0
    share_array = np.zeros((len(ids), length, layers))
    for key, share in shares.items():
        share_array[key] = share
    heaviest_share = float(share_array.max(initial=1.0))
    sampled = _stack([trace.points[:, :points] for trace in records], (0, layers, points, 3))
    places = np.zeros((len(records), layers + 1, 4))  # the reference point, then the boxes
    for place, trace in zip(places, records, strict=True):
        place[0, :2], place[1:] = trace.reference_point, trace.boxes
    attention = sum(trace.points[..., 2].sum() / trace.kept.mean() for trace in records)
    kept = sampled[..., 2].sum() / attention if records else 1.0
    weights = [clip.weights.ravel() for clip in clips.values()]  # D times T
    arrays = {
        "record": record,
        "clip": np.array([order[id(trace.clip)] for trace in records], dtype=np.int32),
        "clipStart": np.array([clip.start for clip in clips.values()], dtype=np.int32),
        "clipLength": np.array(lengths, dtype=np.int32),
        "clipFirst": np.cumsum([0, *(layers * n for n in lengths)])[:-1].astype(np.int32),
        "weights": _to_uint16(np.concatenate([np.zeros(0), *weights])),
        "shares": _to_uint16(share_array / heaviest_share),
        "points": _to_uint16(_from_range(sampled[..., :2])),
        # The square root, because most weights are small.
        "attention": np.rint(np.sqrt(sampled[..., 2].clip(0, 1)) * 255).astype(np.uint8),
        "places": _to_uint16(_from_range(places)),
    }
    description = {
        "layers": layers,
        "points": sampled.shape[2],
        "kept": round(float(kept), 4),
        "heaviestShare": heaviest_share,
        "coordinates": _COORDINATES,
        "clipped": len(set(lengths)) > 0 and max(lengths) < length,
    }
    return arrays, description


def _stack(parts: list[np.ndarray], empty: tuple[int, ...]) -> np.ndarray:
    return np.stack(parts) if parts else np.zeros(empty)


def _from_range(coordinates: np.ndarray) -> np.ndarray:
    low, high = _COORDINATES
    return (coordinates - low) / (high - low)


def _to_uint16(values: np.ndarray) -> np.ndarray:
    """Quantises numbers from 0 to 1."""
    return np.rint(np.clip(values, 0, 1) * _UINT16_MAX).astype(np.uint16)
