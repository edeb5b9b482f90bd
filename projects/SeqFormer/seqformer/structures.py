"""Typed results that inference hands to evaluation and visualization."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypedDict

__all__ = ["RLE", "EndedInstance", "FrameInstance", "FrameResult", "Tracklet", "VideoResult"]


class RLE(TypedDict):
    """A compressed run-length encoded mask, as pycocotools and YouTube-VIS JSON have it."""

    size: list[int]  # [height, width], pixels
    counts: str


@dataclass
class Tracklet:
    """One instance of a video under one class.

    With several classes above the threshold an instance gives several tracklets, which share
    ``instance_id`` and masks.
    """

    instance_id: int
    label: int  # contiguous, 0-based
    score: float
    segmentations: list[RLE | None]  # a mask a frame; None where the instance is not seen


@dataclass
class VideoResult:
    """All tracklets of one video, at the video's own size."""

    height: int
    width: int
    length: int  # frames
    tracklets: list[Tracklet] = field(default_factory=list)


@dataclass(frozen=True)
class FrameInstance:
    """An instance that is seen in a frame."""

    instance_id: int
    label: int  # the most probable class so far, contiguous, 0-based
    score: float  # its mean probability over the clips so far
    mask: RLE


@dataclass(frozen=True)
class EndedInstance:
    """An instance that no later frame can show; its scores are those of the whole video."""

    instance_id: int
    scores: list[tuple[int, float]]  # classes that are results, and their scores; perhaps none


@dataclass(frozen=True)
class FrameResult:
    """A frame that no later one can change.

    Masks and ids are final. Labels and scores are those so far, for later clips may hold an instance; its
    last ones are in ``ended`` of this frame or a later one.
    """

    index: int  # of the frame, from 0
    instances: list[FrameInstance]  # by id; all of them, however low their scores
    ended: list[EndedInstance]
