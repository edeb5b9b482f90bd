"""Clips of a video: which frames they have, and what the network predicts in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

__all__ = ["ClipInstances", "FinalFrames", "fits_one_clip", "plan_clips"]


def plan_clips(
    length: int, clip_length: int, stride: int, *, start: int = 0, ended: bool = True
) -> list[range]:
    """The frames of each clip that a video is cut into.

    Clips begin at ``start``, ``start + stride``, and so on. The first one that reaches the end of the video
    is the last, and is shifted to end with it. A video shorter than a clip is one clip.

    Args:
        length: frames of the video so far.
        clip_length: frames in a clip.
        stride: frames from the start of a clip to the start of the next one.
        start: first frame of the first clip to return; a multiple of ``stride``.
        ended: whether the video ends after ``length`` frames. Otherwise only clips that are complete are
            returned.

    Source: SeqFormer, section 3.5.
    """
    clips = [range(s, s + clip_length) for s in range(start, length - clip_length + 1, stride)]
    if not ended:
        return clips
    following = start + stride * len(clips)
    covered = following - stride + clip_length if following else 0  # frames that clips hold
    if covered < length:
        clips.append(range(max(length - clip_length, 0), length))
    return clips


def fits_one_clip(length: int | None, bytes_per_frame: int, budget: float) -> bool:
    """Whether a whole video can be decoded as one clip.

    Args:
        length: frames of the video; None if it is not known, and then the video is not one clip.
        bytes_per_frame: what decoding takes for each frame of a clip.
        budget: bytes that decoding may take.
    """
    return length is not None and length * bytes_per_frame <= budget


class ClipInstances:
    """The instances that the network predicts in one clip.

    Attributes:
        start: the clip's first frame.
        class_probabilities: (N, K).
        mask_logits: (N, T, h, w), stride 4, padding included.
        mask_probabilities: (N, T, h, w); by default the sigmoid of the logits.
    """

    def __init__(
        self,
        start: int,
        class_probabilities: Tensor,
        mask_logits: Tensor,
        mask_probabilities: Tensor | None = None,
    ):
        self.start = start
        self.class_probabilities = class_probabilities
        self.mask_logits = mask_logits
        self.mask_probabilities = mask_logits.sigmoid() if mask_probabilities is None else mask_probabilities

    def __len__(self) -> int:
        return len(self.mask_logits)

    @property
    def end(self) -> int:
        """The frame after the clip's last one."""
        return self.start + self.mask_logits.shape[1]

    def select(self, rows: Sequence[int]) -> ClipInstances:
        """Only the instances of these rows."""
        rows = list(rows)
        return ClipInstances(
            self.start,
            self.class_probabilities[rows],
            self.mask_logits[rows],
            self.mask_probabilities[rows],
        )


@dataclass
class FinalFrames:
    """Frames that no later clip can change.

    Attributes:
        start: the first of the n frames.
        ids: of the N instances that a clip holds in at least one of the frames.
        mask_logits: (N, n, h, w), the mean over the clips that hold the instance in a frame.
        present: (N, n) bool, whether any clip holds the instance in the frame. Where none does, the logits
            are zero and have no meaning.
    """

    start: int
    ids: list[int]
    mask_logits: Tensor
    present: Tensor
