"""Puts a dataset in YouTube-VIS format together, frame by frame."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_api

from seqformer.errors import InputError
from seqformer.formats.frames import frame_size
from seqformer.formats.rle import encode_masks
from seqformer.structures import RLE

__all__ = ["DatasetBuilder", "VideoBuilder"]


@dataclass
class _Instance:
    category: str
    crowd: bool
    masks: list[RLE | None]


@dataclass
class VideoBuilder:
    """A video whose instances become known frame by frame.

    Attributes:
        names: its T files, relative to the folder of frames.
        height, width: pixels.
    """

    names: list[str]
    height: int
    width: int
    instances: dict[Hashable, _Instance] = field(default_factory=dict)

    def add(self, frame: int, identity: Hashable, category: str, mask: RLE, crowd: bool = False) -> None:
        """Adds an instance's mask in a frame; an empty mask counts as none.

        Args:
            frame: from 0 to T - 1.
            identity: the same in all frames.
            category: its name.
            mask: compressed RLE of the video's size.
            crowd: a region to be ignored.

        Raises:
            InputError: if the instance has a mask there, or another category elsewhere.
        """
        if not mask_api.area(mask):
            return
        instance = self.instances.get(identity)
        if instance is None:
            instance = self.instances[identity] = _Instance(category, crowd, [None] * len(self.names))
        if instance.category != category:
            raise InputError(f"{identity} is '{category}' here and '{instance.category}' in an earlier frame")
        if instance.masks[frame] is not None:
            raise InputError(f"{identity} appears twice in the frame")
        instance.masks[frame] = mask

    def add_ids(self, frame: int, ids: np.ndarray, categories: dict[int, str]) -> None:
        """Adds the instances of a picture (H, W) of ids; those not in ``categories`` are background."""
        present = [id_ for id_ in np.unique(ids).tolist() if id_ in categories]
        if present:
            masks = ids[None] == np.asarray(present)[:, None, None]
            for id_, mask in zip(present, encode_masks(masks), strict=True):
                self.add(frame, id_, categories[id_], mask)


class DatasetBuilder:
    """A dataset in the making.

    Args:
        image_root: the folder of frames.
        categories: names by id.
    """

    def __init__(self, image_root: Path, categories: dict[int, str]):
        self.image_root = image_root
        self.categories = categories
        self.videos: list[VideoBuilder] = []

    def add_video(self, frames: list[Path]) -> VideoBuilder:
        """Begins a video of these files, which must lie below the folder of frames.

        Raises:
            InputError: if there are none, one cannot be read, or they have different sizes.
        """
        if not frames:
            raise InputError("a video without frames")
        size = frame_size(frames[0])
        for path in frames[1:]:
            other = frame_size(path)
            if other != size:
                raise InputError(
                    f"'{path}' is {other[1]}x{other[0]} pixels, '{frames[0]}' {size[1]}x{size[0]}: frames of "
                    "a video must have one size"
                )
        video = VideoBuilder([path.relative_to(self.image_root).as_posix() for path in frames], *size)
        self.videos.append(video)
        return video

    def to_json(self) -> dict[str, Any]:
        """The content of the YouTube-VIS JSON.

        Raises:
            InputError: if there are no videos.
        """
        if not self.videos:
            raise InputError("no videos found")
        ids = {name: id_ for id_, name in self.categories.items()}
        videos, annotations = [], []
        for video_id, video in enumerate(self.videos, start=1):
            size = {"height": video.height, "width": video.width, "length": len(video.names)}
            videos.append({"id": video_id, "file_names": video.names, **size})
            for instance in video.instances.values():
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "video_id": video_id,
                        "category_id": ids[instance.category],
                        "iscrowd": int(instance.crowd),
                        **size,
                        "segmentations": instance.masks,
                        "bboxes": [mask and mask_api.toBbox(mask).tolist() for mask in instance.masks],
                        "areas": [mask and int(mask_api.area(mask)) for mask in instance.masks],
                    }
                )
        categories = [{"id": id_, "name": name} for id_, name in self.categories.items()]
        return {"videos": videos, "categories": categories, "annotations": annotations}
