"""Typed results that inference hands to evaluation and visualization."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypedDict

__all__ = ["RLE", "Tracklet", "VideoResult"]


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
