"""A single video, from a dataset or not: its frames, and its dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seqformer.errors import InputError
from seqformer.formats.ytvis import Dataset, Video, read_ytvis
from seqformer.video.sources import FrameSource, ImageSequenceReader, VideoReader, open_source

__all__ = ["DatasetVideo", "open_dataset_video"]


@dataclass
class DatasetVideo:
    """A video that can be read several times.

    Attributes:
        frames: the source of its frames.
        video: its id, size and length.
        dataset: the dataset it belongs to, or None.
        times: the times of its T frames, seconds after the first; None for pictures.
        problem: one line about parts of the source that could not be read; None if all was read.
    """

    frames: FrameSource
    video: Video
    dataset: Dataset | None
    times: list[float] | None
    problem: str | None

    def pick(self, numbers: Sequence[int]) -> list[np.ndarray]:
        """Returns the frames with these numbers, (H, W, 3) uint8 RGB, in this order, counted from 0."""
        requested, pictures = set(numbers), {}
        with self.frames:  # closes the source if the loop stops early
            for t, frame in enumerate(self.frames):
                if t in requested:
                    pictures[t] = frame
                if len(pictures) == len(requested):
                    break
        return [pictures[t] for t in numbers]


def open_dataset_video(
    inputs: str | Path | Sequence[str | Path] | None = None,
    *,
    dataset: str | Path | None = None,
    images: str | Path | None = None,
    video_id: int | None = None,
) -> DatasetVideo:
    """Opens a video from its file or pictures, or by its id in a dataset.

    Args:
        inputs: a video file, a folder of pictures, a glob pattern or picture files.
        dataset: a YouTube-VIS JSON that contains the video.
        images: the folder that the file names in ``dataset`` are relative to; needed without ``inputs``.
        video_id: the video's id in ``dataset``; without a dataset, the id to assign (default: 1).

    Raises:
        InputError: if the video cannot be read, or its frames do not match the dataset.

    Examples:
        >>> video = open_dataset_video(dataset="val.json", images="JPEGImages", video_id=3)
        >>> first, last = video.pick([0, video.video.length - 1])
    """
    content, known = None, None
    if dataset is not None:
        content = read_ytvis(dataset)
        if video_id is None:
            raise InputError("`dataset` has several videos: give `video_id`")
        if video_id not in content.videos:
            raise InputError(f"there is no video {video_id} in {dataset}")
        known = content.videos[video_id]
    if inputs:
        source = open_source(inputs)
    elif known is None or images is None:
        raise InputError("no frames: give `inputs`, or `dataset`, `images` and `video_id`")
    else:
        source = ImageSequenceReader([Path(images, name) for name in known.names], keep_order=True)
    is_video = isinstance(source, VideoReader)
    times = [float(source.time.start) for _ in source] if is_video else None
    length = source.length if times is None else len(times)
    if length is None:
        raise InputError(f"'{source.name}' can be read only once: give a video file or pictures")
    video = known
    if video is None:
        names = [str(t) for t in range(length)]
        video = Video(1 if video_id is None else video_id, names, source.height, source.width)
    elif (length, source.height, source.width) != (video.length, video.height, video.width):
        raise InputError(
            f"the frames do not match video {video.id} in {dataset}: there are {length} of "
            f"{source.width}x{source.height} pixels, not {video.length} of {video.width}x{video.height}"
        )
    return DatasetVideo(source, video, content, times, source.problem)
