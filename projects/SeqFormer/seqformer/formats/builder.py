"""Builds a YouTube-VIS dataset frame by frame. Used by the readers of other formats."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from pycocotools import mask as mask_api

from seqformer.errors import InputError
from seqformer.formats.frames import frame_size, list_pictures, read_ids, subfolders
from seqformer.formats.rle import encode_masks
from seqformer.formats.ytvis import Annotation, Dataset, Video
from seqformer.structures import RLE

__all__ = ["DatasetBuilder", "VideoBuilder", "read_frames"]


class VideoBuilder:
    """Adds the instances of one video to a dataset.

    Attributes:
        size: height and width, pixels.
        length: the number of frames, T.
    """

    def __init__(self, dataset: Dataset, video: Video):
        self.size = video.height, video.width
        self.length = video.length
        self._video = video
        self._dataset = dataset
        self._instances: dict[Hashable, Annotation] = {}

    def add(
        self, frame: int, identity: Hashable, category: int, mask: RLE | None, crowd: bool = False
    ) -> None:
        """Adds the mask of an instance in a frame. An empty mask is ignored.

        Args:
            frame: from 0 to T - 1.
            identity: identifies the instance in all frames.
            category: category id.
            mask: compressed RLE of the video's size; None for no mask.
            crowd: whether this is a region that evaluation ignores.

        Raises:
            InputError: if the instance already has a mask in this frame, or has a different category in
                another frame.
        """
        if mask is None or not mask_api.area(mask):
            return
        instance = self._instances.get(identity)
        if instance is None:
            instance = self._dataset.annotate(self._video, category, [None] * self.length, crowd)
            self._instances[identity] = instance
        if instance.category != category:
            here, earlier = (self._dataset.names[id_] for id_ in (category, instance.category))
            raise InputError(f"{identity} is '{here}' here and '{earlier}' in an earlier frame")
        if instance.masks[frame] is not None:
            raise InputError(f"{identity} appears twice in the frame")
        instance.masks[frame] = mask

    def read_ids(self, path: Path) -> np.ndarray:
        """Returns the ids (H, W) in a picture, which must have the video's size.

        Raises:
            InputError: if the picture cannot be read or has a different size.
        """
        ids = read_ids(path)
        if ids.shape != self.size:
            (height, width), (frame_height, frame_width) = ids.shape, self.size
            raise InputError(
                f"'{path}' is {width}x{height} pixels, but its frame is {frame_width}x{frame_height}"
            )
        return ids

    def add_ids(self, frame: int, ids: np.ndarray, categories: dict[int, int]) -> None:
        """Adds the instances in a picture of ids (H, W). Ids without a category are background."""
        present = [id_ for id_ in np.unique(ids).tolist() if id_ in categories]
        if present:
            masks = ids[None] == np.asarray(present)[:, None, None]
            for id_, mask in zip(present, encode_masks(masks), strict=True):
                self.add(frame, id_, categories[id_], mask)


class DatasetBuilder:
    """Builds a dataset video by video.

    Args:
        image_root: the folder of frames.
        names: category names by id.

    Raises:
        InputError: if two categories have the same name.
    """

    def __init__(self, image_root: Path, names: dict[int, str]):
        if len(set(names.values())) < len(names):
            raise InputError(f"two categories have the same name: {', '.join(names.values())}")
        self.image_root = image_root
        self._dataset = Dataset(names, {}, [])

    def add_video(self, frames: list[Path]) -> VideoBuilder:
        """Adds a video with these frames, which must be below ``image_root``.

        Raises:
            InputError: if there are no frames, a frame cannot be read, or the sizes differ.
        """
        if not frames:
            raise InputError("a video has no frames")
        height, width = size = frame_size(frames[0])
        for path in frames[1:]:
            other = frame_size(path)
            if other != size:
                raise InputError(
                    f"'{path}' is {other[1]}x{other[0]} pixels, but '{frames[0]}' is {width}x{height}: all "
                    "frames of a video must have the same size"
                )
        names = [path.relative_to(self.image_root).as_posix() for path in frames]
        video = Video(len(self._dataset.videos) + 1, names, height, width)
        self._dataset.videos[video.id] = video
        return VideoBuilder(self._dataset, video)

    def finish(self) -> Dataset:
        """Returns the dataset.

        Raises:
            InputError: if it has no videos.
        """
        if not self._dataset.videos:
            raise InputError("no videos found")
        return self._dataset


def read_frames(frames: Path, categories: Iterable[str]) -> Dataset:
    """Returns a dataset without annotations, as input for prediction.

    Args:
        frames: a folder with one subfolder of frames per video.
        categories: category names; their ids start at 1.

    Raises:
        InputError: if a folder has no frames or its frames cannot be used.
    """
    builder = DatasetBuilder(frames, dict(enumerate(dict.fromkeys(categories), start=1)))
    for folder in subfolders(frames):
        pictures = list(list_pictures(folder).values())
        if not pictures:
            raise InputError(f"'{folder}': no frames")
        builder.add_video(pictures)
    return replace(builder.finish(), annotations=None)
