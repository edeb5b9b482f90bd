"""Selection of the frames of a training clip."""

from __future__ import annotations

import numpy as np

from seqformer.errors import InputError

__all__ = ["ClipSampler"]


class ClipSampler:
    """Samples frames around a reference frame (paper, section 4.2).

    The reference is any frame of the video with equal probability. The others are sampled without repetition
    from the frames within ``frame_range`` of it, at multiples of ``interval``. If these are too few, the
    nearest other frames are added. Frames repeat only in videos shorter than a clip.

    Args:
        num_frames: frames in a clip, T.
        frame_range: greatest distance from the reference, in frames.
        interval: spacing of the candidates, in frames.
        shuffle: return the frames in random order instead of their order in time.

    Random numbers come from NumPy's global generator, which Detectron2 seeds in every data-loading process.

    Raises:
        InputError: if a number is out of range.
    """

    def __init__(self, num_frames: int, frame_range: int, interval: int = 1, shuffle: bool = False):
        if num_frames < 1 or frame_range < 0 or interval < 1:
            raise InputError(
                "INPUT.SAMPLING_FRAME_NUM and SAMPLING_INTERVAL must be at least 1 and "
                f"SAMPLING_FRAME_RANGE at least 0, not {num_frames}, {interval} and {frame_range}"
            )
        self.num_frames = num_frames
        self.frame_range = frame_range
        self.interval = interval
        self.shuffle = shuffle

    def __call__(self, length: int) -> list[int]:
        """Returns the indices of a clip's frames in a video of ``length`` frames."""
        reference = int(np.random.randint(length))
        distance = np.abs(np.arange(length) - reference)
        candidates = np.flatnonzero(
            (distance > 0) & (distance <= self.frame_range) & (distance % self.interval == 0)
        )
        count = self.num_frames - 1
        if len(candidates) >= count:
            others = np.random.choice(candidates, count, replace=False)
        else:
            rest = np.setdiff1d(np.arange(length), np.append(candidates, reference))
            others = np.append(candidates, rest[np.argsort(distance[rest], kind="stable")])[:count]
            repeats = np.random.permutation(np.resize(np.arange(length), max(count - len(others), 0)))
            others = np.append(others, repeats)
        frames = np.append(others, reference).astype(int)
        return (np.random.permutation(frames) if self.shuffle else np.sort(frames)).tolist()
