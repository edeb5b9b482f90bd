"""Clips of a video: their frames, and the instances that the network predicts in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

__all__ = ["ClipInstances", "FinalFrames", "fits_one_clip", "plan_clips"]


def plan_clips(
    length: int, clip_length: int, stride: int, *, start: int = 0, ended: bool = True
) -> list[range]:
    """Cuts a video into clips and returns the frames of each.

    Clips begin at ``start``, ``start + stride``, and so on. The first clip that reaches the end of the video
    is the last, and is shifted to end with the video. A video shorter than a clip is one clip.

    Args:
        length: number of frames so far.
        clip_length: frames per clip.
        stride: frames from the start of a clip to the start of the next one.
        start: first frame of the first clip to return; a multiple of ``stride``.
        ended: whether the video ends after ``length`` frames. If not, only complete clips are returned.

    Source: SeqFormer, section 3.5.
    """
    clips = [range(s, s + clip_length) for s in range(start, length - clip_length + 1, stride)]
    if not ended:
        return clips
    following = start + stride * len(clips)
    covered = following - stride + clip_length if following else 0  # frames in clips so far
    if covered < length:
        clips.append(range(max(length - clip_length, 0), length))
    return clips


def fits_one_clip(length: int | None, bytes_per_frame: int, budget: float) -> bool:
    """Returns whether a whole video can be decoded as one clip.

    Args:
        length: number of frames; if it is unknown (None), the answer is no.
        bytes_per_frame: memory that decoding needs per frame.
        budget: memory that decoding may use, bytes.
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
        """Frame index just past the end of the clip."""
        return self.start + self.mask_logits.shape[1]

    def select(self, rows: Sequence[int]) -> ClipInstances:
        """Returns the clip with only the instances in these rows."""
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
        start: index of the first of the n frames.
        ids: ids of the N instances that clips predict in any of the frames.
        mask_logits: (N, n, h, w), mean over the clips that contain the frame and the instance.
        present: (N, n) bool, whether any clip contains the frame and the instance. If not, the logits are
            zero and must be ignored.
    """

    start: int
    ids: list[int]
    mask_logits: Tensor
    present: Tensor
