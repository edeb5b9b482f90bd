"""Options of inference."""

from __future__ import annotations

from dataclasses import dataclass, field

from seqformer.errors import InputError, check_number
from seqformer.tracking.options import MotionOptions

__all__ = ["PROTOCOLS", "InferenceOptions"]

PROTOCOLS = ("queries", "pairs")


@dataclass(frozen=True)
class InferenceOptions:
    """How a video is cut into clips, how these are tracked, and which of the queries are results.

    Attributes:
        threshold: least class probability of a result.
        multi_class: every class above the threshold is a result; otherwise only an instance's best one.
        protocol: "queries" for the best queries with every class above the threshold, or "pairs" for the
            original release's, the best (query, class) pairs whatever their probability. The second is for
            whole videos; clip matching follows queries.
        clip_matching: cut videos into clips; otherwise a video is one clip.
        auto_memory_gb: if not 0, it overrides ``clip_matching``: a video is one clip if that takes at most
            so many GB (1e9 bytes), and is cut into clips otherwise or if its length is not known.
        clip_length: frames in a clip.
        clip_stride: frames from the start of a clip to the start of the next one.
        max_live_instances: if not 0, the most instances that clip matching follows at a time.
        merge_on_cpu: keep the masks of clips in main memory.
        num_instances: instances kept of a clip.
        duplicate_iou: if the masks of two instances of a clip overlap by more than this IoU, the more
            probable one is kept; 1 keeps all. Below 1, twice ``num_instances`` queries are drawn, so that the
            next best ones take the places of duplicates.
        motion: how much motion counts in clip matching. If it does, which of several duplicates is kept
            depends on which of them continues an instance.

    Raises:
        InputError: if a value is out of its range.
    """

    threshold: float = 0.05
    multi_class: bool = True
    protocol: str = "queries"
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
            raise InputError("`clip_length` must be at least 2 if motion counts, not 1")

    @property
    def by_motion(self) -> bool:
        """Whether motion counts at all."""
        return self.motion.weight > 0

    @property
    def top_pairs(self) -> bool:
        """Whether the best (query, class) pairs are the results."""
        return self.protocol == "pairs"

    @property
    def max_results(self) -> int | None:
        """The most results of a video; None for any number."""
        return self.num_instances if self.top_pairs else None

    @property
    def num_candidates(self) -> int:
        """The most queries of a clip whose masks are drawn."""
        return self.num_instances * (2 if self.duplicate_iou < 1 else 1)
