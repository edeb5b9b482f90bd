"""Inference options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from seqformer.errors import InputError, check_number
from seqformer.tracking.options import MotionOptions
from seqformer.tracking.tracklets import TrackletBuilder

__all__ = ["PROTOCOLS", "InferenceOptions"]

PROTOCOLS = ("queries", "pairs", "original")


@dataclass(frozen=True)
class InferenceOptions:
    """How a video is cut into clips and tracked, and which queries become results.

    Attributes:
        threshold: minimum class probability of a result.
        multi_class: whether all classes of an instance above the threshold are results, or only its best.
        protocol: "queries": the best queries, with every class above the threshold. "pairs", as in the
            original release: the best (query, class) pairs, without a threshold. "original": pairs, and the
            rest of the original release: its resize, no padding, masks resized straight to the size
            of the output, and no results without a mask. Both are meant for whole videos, because clip
            matching tracks queries.
        keep_empty: whether instances without a mask in any frame are results, as in the published protocol.
        clip_matching: cut videos into clips; otherwise a video is one clip.
        auto_memory_gb: if not 0, overrides ``clip_matching``: a video is one clip if decoding it needs at
            most this many GB (1e9 bytes). It is cut into clips if not, or if its length is unknown.
        clip_length: frames per clip.
        clip_stride: frames from the start of a clip to the start of the next one.
        max_live_instances: maximum number of active instances during clip matching; 0 for no limit.
        merge_on_cpu: keep the masks of clips in main memory.
        num_instances: maximum number of instances per clip.
        duplicate_iou: IoU threshold above which the less probable of two instances of a clip is dropped as a
            duplicate; 1 keeps all. Below 1, there are twice ``num_instances`` candidates, so that others
            replace the duplicates.
        motion: options of motion in clip matching. With motion, the duplicate that continues an instance is
            kept.

    Raises:
        InputError: if a value is out of range.
    """

    threshold: float = 0.05
    multi_class: bool = True
    protocol: str = "queries"
    keep_empty: bool = False
    clip_matching: bool = False
    auto_memory_gb: float = 0.0
    clip_length: int = 5
    clip_stride: int = 1
    max_live_instances: int = 0
    merge_on_cpu: bool = True
    num_instances: int = 10
    duplicate_iou: float = 1.0
    motion: MotionOptions = field(default_factory=MotionOptions)

    def __post_init__(self) -> None:
        check_number("threshold", self.threshold, at_least=0, at_most=1)
        if self.protocol not in PROTOCOLS:
            raise InputError(f"`protocol` must be one of {', '.join(PROTOCOLS)}, not {self.protocol!r}")
        check_number("auto_memory_gb", self.auto_memory_gb, at_least=0)
        check_number("clip_length", self.clip_length, integer=True, at_least=1)
        check_number("clip_stride", self.clip_stride, integer=True, at_least=1)
        check_number("max_live_instances", self.max_live_instances, integer=True, at_least=0)
        check_number("num_instances", self.num_instances, integer=True, at_least=1)
        check_number("duplicate_iou", self.duplicate_iou, above=0, at_most=1)
        if self.by_motion and self.clip_length < 2:
            raise InputError("`clip_length` must be at least 2 if motion is used, not 1")

    @property
    def by_motion(self) -> bool:
        """Whether instances are assigned by motion."""
        return self.motion.weight > 0

    @property
    def top_pairs(self) -> bool:
        """Whether the best (query, class) pairs are the results."""
        return self.protocol != "queries"

    @property
    def original(self) -> bool:
        """Whether frames and masks are resized, and results chosen, as in the original release."""
        return self.protocol == "original"

    @property
    def max_results(self) -> int | None:
        """Maximum number of results of a video; None for no limit."""
        return self.num_instances if self.top_pairs else None

    def tracklets(self, class_names: Sequence[str] = ()) -> TrackletBuilder:
        """Returns a new builder of the tracklets of a video."""
        return TrackletBuilder(
            self.max_results, class_names, keep_empty=self.keep_empty and not self.original
        )

    @property
    def num_candidates(self) -> int:
        """Maximum number of candidates per clip: queries whose masks are computed."""
        return self.num_instances * (2 if self.duplicate_iou < 1 else 1)
