"""Typed results of inference, which evaluation, drawing and files use.

No PyTorch, OpenCV or Detectron2 is needed to read them.
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
    """One instance of a video under one class.

    An instance with several classes above the threshold has several tracklets, which share ``instance_id``
    and masks.

    Attributes:
        instance_id: from 0, in order of first appearance.
        label: the class, contiguous and 0-based.
        score: mean probability of that class over the clips that hold the instance.
        segmentations: T masks; None where the instance is not visible.
        class_name: the name of the class.
        size: height and width of the frames, pixels.
    """

    instance_id: int
    label: int
    score: float
    segmentations: list[RLE | None] = field(repr=False)
    class_name: str = ""
    size: tuple[int, int] = (0, 0)

    def masks(self, t: int) -> np.ndarray:
        """The mask (H, W) in frame ``t``, bool; all False if the instance is not visible there."""
        rle = self.segmentations[t]
        return np.zeros(self.size, dtype=bool) if rle is None else mask_codec.decode(rle).astype(bool)

    @property
    def boxes(self) -> np.ndarray:
        """(T, 4) float64, tight boxes around the masks: x0, y0, x1, y1 in pixels.

        Right and bottom edges are exclusive; NaN where the instance is not visible.
        """
        boxes = np.full((len(self.segmentations), 4), np.nan)
        visible = [t for t, rle in enumerate(self.segmentations) if rle is not None]
        if visible:
            x, y, width, height = mask_codec.toBbox([self.segmentations[t] for t in visible]).T
            boxes[visible] = np.stack((x, y, x + width, y + height), axis=1)
        return boxes

    def to_json(self, video_id: int = 1, category_ids: Sequence[int] | None = None) -> dict[str, Any]:
        """Returns the entry of results.json for this tracklet, in YouTube-VIS format.

        Args:
            video_id: the video's id in the dataset.
            category_ids: the dataset's category id of every contiguous class; by default classes are counted
                from 1.

        Returns:
            video_id, category_id, score and segmentations (an RLE or None for every frame).

        Raises:
            InputError: if the model predicts a class that the dataset does not have.
        """
        if category_ids is None:
            category_ids = range(1, self.label + 2)
        if self.label >= len(category_ids):
            raise InputError(
                f"the model predicts class {self.label} (counted from 0), but the dataset has "
                f"{len(category_ids)} classes: are the weights made for another dataset?"
            )
        return {
            "video_id": video_id,
            "category_id": category_ids[self.label],
            "score": float(self.score),
            "segmentations": self.segmentations,
        }


@dataclass
class VideoResult:
    """All tracklets of one video, at the video's own size.

    Attributes:
        height, width: of the frames, pixels.
        length: frames, T.
        tracklets: in order of first appearance, or with the best (query, class) pairs the best first.

    Examples:
        >>> result = predictor(frames)
        >>> [(t.class_name, t.score, t.boxes[0]) for t in result.tracklets]
    """

    height: int
    width: int
    length: int
    tracklets: list[Tracklet] = field(default_factory=list)

    def to_json(self, video_id: int = 1, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """Returns the entries of results.json for this video, as :meth:`Tracklet.to_json` makes them."""
        return [tracklet.to_json(video_id, category_ids) for tracklet in self.tracklets]


@dataclass(frozen=True)
class FrameInstance:
    """An instance that is visible in a frame."""

    instance_id: int
    label: int  # the most probable class so far, contiguous, 0-based
    score: float  # its mean probability over the clips so far
    mask: RLE


@dataclass(frozen=True)
class EndedInstance:
    """An instance that no later frame can show; its scores are those of the whole video."""

    instance_id: int
    scores: list[tuple[int, float]]  # classes that are results, and their scores; may be empty


@dataclass(frozen=True)
class FrameResult:
    """A frame that no later one can change.

    Masks and ids are final. Labels and scores are those so far, for later clips may hold an instance. Its
    final ones are in ``ended`` of this frame or of a later one.
    """

    index: int  # of the frame, from 0
    instances: list[FrameInstance]  # by id; all of them, however low their scores
    ended: list[EndedInstance]


@dataclass
class Trace:
    """What the decoder did with one clip of T frames.

    D decoder layers, Q queries, M heads, L levels, P points, K classes. Layers are counted from 1 in methods
    and messages; arrays hold layer 1 at index 0. All coordinates are x before y, normalised to the unpadded
    frame, float32; sampling locations and boxes may leave [0, 1].

    The fused operator never writes locations and weights out. They are computed anew from its inputs by
    :mod:`seqformer.ops.reference`, with which the operator agrees.

    Attributes:
        sampling_locations: (D, T, Q, M, L, P, 2).
        attention_weights: (D, T, Q, M, L, P), sum to 1 over L and P together.
        reference_points: (T, Q, 2), where layer 1 starts from, the same in all frames.
        boxes: (D, T, Q, 4), cxcywh, refined by each layer. Layer l + 1 starts from those of layer l.
        temporal_weights: (D, T, Q), sum to 1 over T.
        class_probabilities: (D, Q, K), by each layer's class head.
        queries: (N,) int64, the queries kept, best first. Position in it is the instance's id, as it is in
            the results of a video that is one clip.
        segmentations: N instances times T masks at the output's size, None where one is empty; None if masks
            were not asked for.

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
        """(N,) int64, the most likely class of every instance, 0-based, by the last layer."""
        return self.class_probabilities[-1, self.queries].argmax(1)

    @property
    def scores(self) -> np.ndarray:
        """(N,) the probability of that class."""
        return self.class_probabilities[-1, self.queries].max(1)

    def references(self, layer: int) -> np.ndarray:
        """What a layer samples around: points (T, Q, 2) for layer 1, boxes (T, Q, 4) cxcywh for later ones.

        Raises:
            InputError: if there is no such layer.
        """
        self.check_layer(layer)
        return self.reference_points if layer == 1 else self.boxes[layer - 2]

    def check_layer(self, layer: int) -> None:
        """Raises an InputError if the decoder has no layer of that number, counted from 1."""
        if not 1 <= layer <= self.num_layers:
            raise InputError(f"there is no decoder layer {layer}: the model has 1 to {self.num_layers}")

    def check_instance(self, instance: int) -> None:
        """Raises an InputError if there is no instance of that id."""
        if not 0 <= instance < len(self.queries):
            raise InputError(
                f"there is no instance {instance}: the model keeps 0 to {len(self.queries) - 1}, best first"
            )
