"""Typed results of inference, used by evaluation, drawing and files.

They need neither PyTorch nor OpenCV nor Detectron2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np
from pycocotools import mask as mask_codec

from seqformer.errors import InputError

__all__ = ["RLE", "EndedInstance", "FrameInstance", "FrameResult", "Trace", "Tracklet", "VideoResult"]


class RLE(TypedDict):
    """A compressed run-length encoded mask, as in pycocotools and YouTube-VIS JSON."""

    size: list[int]  # [height, width], pixels
    counts: str


@dataclass
class Tracklet:
    """One tracked instance of a video with one class.

    An instance with several classes above the threshold has one tracklet for each. They share ``instance_id``
    and masks.

    Attributes:
        instance_id: counts from 0, in order of first appearance.
        label: class index, contiguous and 0-based.
        score: mean probability of that class over the clips that contain the instance.
        segmentations: T masks; None where the instance is not visible.
        class_name: name of the class.
        size: height and width of the frames in pixels.
    """

    instance_id: int
    label: int
    score: float
    segmentations: list[RLE | None] = field(repr=False)
    class_name: str = ""
    size: tuple[int, int] = (0, 0)

    def masks(self, t: int) -> np.ndarray:
        """Returns the mask in frame ``t``, (H, W) bool; all False if the instance is not visible."""
        rle = self.segmentations[t]
        return np.zeros(self.size, dtype=bool) if rle is None else mask_codec.decode(rle).astype(bool)

    @property
    def boxes(self) -> np.ndarray:
        """Tight boxes around the masks, (T, 4) float64: x0, y0, x1, y1 in pixels.

        Right and bottom edges are exclusive. A box is NaN where the instance is not visible.
        """
        boxes = np.full((len(self.segmentations), 4), np.nan)
        visible = [t for t, rle in enumerate(self.segmentations) if rle is not None]
        if visible:
            x, y, width, height = mask_codec.toBbox([self.segmentations[t] for t in visible]).T
            boxes[visible] = np.stack((x, y, x + width, y + height), axis=1)
        return boxes

    def to_json(self, video_id: int = 1, category_ids: Sequence[int] | None = None) -> dict[str, Any]:
        """Returns this tracklet's entry of results.json, in YouTube-VIS format.

        Args:
            video_id: the video's id in the dataset.
            category_ids: the dataset's category id of every class index; by default the index plus 1.

        Returns:
            a dict of video_id, category_id, score and segmentations (an RLE or None for every frame).

        Raises:
            InputError: if the model predicts a class that the dataset does not have.
        """
        if category_ids is None:
            category_ids = range(1, self.label + 2)
        if self.label >= len(category_ids):
            raise InputError(
                f"the model predicts class {self.label} (counted from 0), but the dataset has "
                f"{len(category_ids)} classes: were the weights trained on another dataset?"
            )
        return {
            "video_id": video_id,
            "category_id": category_ids[self.label],
            "score": float(self.score),
            "segmentations": self.segmentations,
        }


@dataclass
class VideoResult:
    """All tracklets of one video, with masks at the video's own size.

    Attributes:
        height, width: size of the frames in pixels.
        length: number of frames, T.
        tracklets: in order of first appearance; with the result protocol "pairs", the best first.

    Examples:
        >>> result = predictor(frames)
        >>> [(t.class_name, t.score, t.boxes[0]) for t in result.tracklets]
    """

    height: int
    width: int
    length: int
    tracklets: list[Tracklet] = field(default_factory=list)

    def to_json(self, video_id: int = 1, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """Returns this video's entries of results.json; see :meth:`Tracklet.to_json`."""
        return [tracklet.to_json(video_id, category_ids) for tracklet in self.tracklets]

    def best_tracklets(self, threshold: float = 0.0) -> list[Tracklet]:
        """Returns each instance with its best class, if the score reaches the threshold."""
        best: dict[int, Tracklet] = {}
        for tracklet in sorted(self.tracklets, key=lambda tracklet: tracklet.score):
            best[tracklet.instance_id] = tracklet
        return [tracklet for tracklet in best.values() if tracklet.score >= threshold]


@dataclass(frozen=True)
class FrameInstance:
    """A visible instance in one frame."""

    instance_id: int
    label: int  # the most probable class so far, contiguous, 0-based
    score: float  # its mean probability over the clips so far
    mask: RLE


@dataclass(frozen=True)
class EndedInstance:
    """An instance that cannot appear in any later frame, with its final scores."""

    instance_id: int
    scores: list[tuple[int, float]]  # (label, score) of the classes that are results; may be empty


@dataclass(frozen=True)
class FrameResult:
    """The result of one frame, with final masks and ids.

    Labels and scores are those so far, since later clips may contain the same instance. The final ones follow
    in ``ended`` of this frame or a later one.
    """

    index: int  # frame number, from 0
    instances: list[FrameInstance]  # all visible instances in order of id, whatever their scores
    ended: list[EndedInstance]


@dataclass
class Trace:
    """Internals of the decoder for one clip of T frames.

    D decoder layers, Q queries, M heads, L levels, P points, K classes. Methods and messages count layers
    from 1; arrays have layer 1 at index 0. All coordinates are xy, normalised to the unpadded frame, float32.
    Sampling locations and boxes may leave [0, 1].

    The fused operator does not return locations and weights, so :mod:`seqformer.ops.reference` recomputes
    them from its inputs.

    Attributes:
        sampling_locations: (D, T, Q, M, L, P, 2).
        attention_weights: (D, T, Q, M, L, P), sum to 1 over L and P together.
        reference_points: (T, Q, 2), references of layer 1, the same in all frames.
        boxes: (D, T, Q, 4), cxcywh, refined by each layer. Layer l + 1 starts from the boxes of layer l.
        temporal_weights: (D, T, Q), sum to 1 over T.
        class_probabilities: (D, Q, K), from each layer's class head.
        queries: (N,) int64, the selected queries, best first. A position in it is an instance id, the same
            as in the results of a video that is one clip.
        segmentations: T masks for each of N instances, at output size, None where empty; None if masks were
            not requested.

    Source: SeqFormer, section 3.2, and figures 2 and 3 of its supplement.
    """

    sampling_locations: np.ndarray
    attention_weights: np.ndarray
    reference_points: np.ndarray
    boxes: np.ndarray
    temporal_weights: np.ndarray
    class_probabilities: np.ndarray
    queries: np.ndarray
    segmentations: list[list[RLE | None]] | None

    @property
    def num_layers(self) -> int:
        """D."""
        return len(self.boxes)

    @property
    def num_frames(self) -> int:
        """T."""
        return self.boxes.shape[1]

    @property
    def num_levels(self) -> int:
        """L."""
        return self.attention_weights.shape[4]

    @property
    def labels(self) -> np.ndarray:
        """(N,) int64, the most probable class of every instance in the last layer, 0-based."""
        return self.class_probabilities[-1, self.queries].argmax(1)

    @property
    def scores(self) -> np.ndarray:
        """(N,) probability of that class."""
        return self.class_probabilities[-1, self.queries].max(1)

    def references(self, layer: int) -> np.ndarray:
        """Returns a layer's references: points (T, Q, 2) for layer 1, boxes (T, Q, 4) cxcywh for later ones.

        Raises:
            InputError: if there is no such layer.
        """
        self.check_layer(layer)
        return self.reference_points if layer == 1 else self.boxes[layer - 2]

    def check_layer(self, layer: int) -> None:
        """Raises InputError if the decoder has no layer with that number, counted from 1."""
        if not 1 <= layer <= self.num_layers:
            raise InputError(f"there is no decoder layer {layer}: the model has 1 to {self.num_layers}")

    def check_instance(self, instance: int) -> None:
        """Raises InputError if there is no instance with that id."""
        if not 0 <= instance < len(self.queries):
            raise InputError(
                f"there is no instance {instance}: the model keeps 0 to {len(self.queries) - 1}, best first"
            )
