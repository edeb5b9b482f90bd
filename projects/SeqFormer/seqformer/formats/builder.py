"""Builds a YouTube-VIS dataset frame by frame. Used by the readers of other formats."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from pycocotools import mask as mask_api

from seqformer.errors import InputError
from seqformer.formats.files import is_inside, natural_order
from seqformer.formats.frames import frame_size, list_pictures, read_ids, subfolders
from seqformer.formats.meta import MetaObject, MetaVideo
from seqformer.formats.rle import encode_masks
from seqformer.formats.ytvis import Annotation, Dataset, Video
from seqformer.structures import RLE

__all__ = ["DatasetBuilder", "ListedFrame", "VideoBuilder", "read_frames"]


@dataclass(frozen=True)
class ListedFrame:
    """A frame in a file that lists frames of videos in any order.

    Attributes:
        name: file name, relative to the folder of frames.
        video: the id of its video; None if the video is the folder of the frame.
        frame: its number in the video; None if frames are in the order of their names.
    """

    name: str
    video: int | None
    frame: int | None


class VideoBuilder:
    """Adds the instances of one video to a dataset.

    Attributes:
        size: height and width, pixels.
        length: the number of frames, T.
    """

    def __init__(self, dataset: Dataset, video: Video, wanted: list[int | None]):
        self.size = video.height, video.width
        self.length = video.length
        self._video = video
        self._dataset = dataset
        self._wanted = wanted
        self._instances: dict[Hashable, Annotation] = {}
        self._scores: dict[Hashable, list[float]] = {}

    def add(
        self,
        frame: int,
        identity: Hashable,
        category: int,
        mask: RLE | None,
        crowd: bool = False,
        *,
        id_: int | None = None,
        score: float | None = None,
    ) -> None:
        """Adds the mask of an instance in a frame. An empty mask is ignored.

        Args:
            frame: from 0 to T - 1.
            identity: identifies the instance in all frames.
            category: category id.
            mask: compressed RLE of the video's size; None for no mask.
            crowd: whether this is a region that evaluation ignores.
            id_: the id that the annotation should have, if it is free; None for any.
            score: of the instance in this frame; the annotation gets the mean.

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
            self._wanted.append(id_)
        if instance.category != category:
            here, earlier = (self._dataset.names[id_] for id_ in (category, instance.category))
            raise InputError(f"{identity} is '{here}' here and '{earlier}' in an earlier frame")
        if instance.masks[frame] is not None:
            raise InputError(f"{identity} appears twice in the frame")
        instance.masks[frame] = mask
        if score is not None:
            scores = self._scores.setdefault(identity, [])
            scores.append(score)
            # Clipping makes the mean of equal numbers exactly that number.
            instance.score = float(np.clip(np.mean(scores), min(scores), max(scores)))

    def read_ids(self, path: Path) -> np.ndarray:
        """Returns the ids (H, W) in a picture, which must have the video's size.

        Raises:
            InputError: if the picture cannot be read or has a different size.
        """
        return read_ids(path, self.size)

    def add_ids(self, frame: int, ids: np.ndarray, objects: Mapping[int, MetaObject]) -> None:
        """Adds the instances in a picture of ids (H, W). Ids without an object are background."""
        for number in np.unique(ids).tolist():
            if (object_ := objects.get(number)) is not None:
                self.add_object(frame, number, object_, encode_masks((ids == number)[None])[0])

    def add_object(self, frame: int, identity: Hashable, object_: MetaObject, mask: RLE | None) -> None:
        """Adds the mask of an object that a meta.json may describe; see :meth:`add`."""
        self.add(frame, identity, object_.category, mask, object_.crowd, id_=object_.id, score=object_.score)


class DatasetBuilder:
    """Builds a dataset video by video.

    Args:
        image_root: the folder of frames.
        names: category names by id.

    Attributes:
        image_root, names: the arguments.

    Raises:
        InputError: if two categories have the same name.
    """

    def __init__(self, image_root: Path, names: dict[int, str]):
        if len(set(names.values())) < len(names):
            raise InputError(f"two categories have the same name: {', '.join(names.values())}")
        self.image_root = image_root
        self.names = names
        self._dataset = Dataset(names, {}, [])
        self._wanted: list[int | None] = []  # ids that annotations should have

    def picture(self, name: str) -> Path:
        """Returns the path of a frame that a file names.

        Raises:
            InputError: if there is no such frame, or it is not below ``image_root``.
        """
        if not is_inside(name):
            raise InputError(f"'{name}' is not in the folder of frames")
        path = self.image_root / name
        if not os.path.isfile(path):  # False for a name that is too long, which Path.is_file raises
            raise InputError(f"no frame '{path}'")
        return path

    def pictures(self, folder: str, video: MetaVideo | None = None) -> dict[str, Path]:
        """Returns the frames of a video by their name without suffix.

        Args:
            folder: the subfolder of frames, used if ``video`` does not name the frames.
            video: the video in a meta.json, if there is one.

        Raises:
            InputError: if a frame is missing or not below ``image_root``, or two have the same name.
        """
        if video is None or video.names is None:
            return list_pictures(self.image_root / folder)
        pictures = {PurePosixPath(name).stem: self.picture(name) for name in video.names}
        if len(pictures) < len(video.names):
            raise InputError(f"two frames of '{folder}' have the same name")
        return pictures

    def add_video(self, frames: list[Path], id_: int | None = None) -> VideoBuilder:
        """Adds a video with these frames, which must be below ``image_root``.

        Args:
            frames: the paths of the frames.
            id_: the id of the video; by default the next one.

        Raises:
            InputError: if there are no frames, a frame cannot be read, the sizes differ, or the id is taken.
        """
        if not frames:
            raise InputError("a video has no frames")
        if id_ is None:
            id_ = max(self._dataset.videos, default=0) + 1
        if id_ in self._dataset.videos:
            raise InputError(f"two videos have the id {id_}")
        height, width = size = frame_size(frames[0])
        for path in frames[1:]:
            other = frame_size(path)
            if other != size:
                raise InputError(
                    f"'{path}' is {other[1]}x{other[0]} pixels, but '{frames[0]}' is {width}x{height}: all "
                    "frames of a video must have the same size"
                )
        names = [path.relative_to(self.image_root).as_posix() for path in frames]
        video = self._dataset.videos[id_] = Video(id_, names, height, width)
        return VideoBuilder(self._dataset, video, self._wanted)

    def add_listed(
        self, frames: Sequence[ListedFrame], source: str, first: Iterable[int] = ()
    ) -> list[tuple[VideoBuilder, int]]:
        """Adds the videos of frames that a file lists.

        Args:
            frames: the frames.
            source: name of the file in messages.
            first: video ids in their order; other videos follow in the order of their first frame.

        Returns:
            The video and the index of each frame.

        Raises:
            InputError: as from :meth:`add_video` and :meth:`picture`.
        """
        videos: dict[int | str, list[int]] = {id_: [] for id_ in first}
        for number, frame in enumerate(frames):
            key = str(PurePosixPath(frame.name).parent) if frame.video is None else frame.video
            videos.setdefault(key, []).append(number)
        places: dict[int, tuple[VideoBuilder, int]] = {}
        for key, numbers in videos.items():
            if all(frames[number].frame is not None for number in numbers):
                if len({frames[number].frame for number in numbers}) < len(numbers):
                    raise InputError(f"{source}: video {key}: two frames have the same number")
                numbers.sort(key=lambda number: frames[number].frame or 0)
            else:
                numbers.sort(key=lambda number: natural_order(frames[number].name))
            try:
                paths = [self.picture(frames[number].name) for number in numbers]
                video = self.add_video(paths, None if isinstance(key, str) else key)
            except InputError as error:
                raise InputError(f"{source}: video {key}: {error}") from None
            places |= {number: (video, index) for index, number in enumerate(numbers)}
        return [places[number] for number in range(len(frames))]

    def finish(self) -> Dataset:
        """Returns the dataset.

        Annotations get the ids that they should have; the others, and the second with the same id, get the
        next ones.

        Raises:
            InputError: if it has no videos.
        """
        if not self._dataset.videos:
            raise InputError("no videos found")
        annotations = self._dataset.annotations or []
        taken: set[int] = set()
        rest = []
        for annotation, id_ in zip(annotations, self._wanted, strict=True):
            if id_ is None or id_ in taken:
                rest.append(annotation)
            else:
                annotation.id = id_
                taken.add(id_)
        for id_, annotation in enumerate(rest, start=max(taken, default=0) + 1):
            annotation.id = id_
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
