"""From a video's dataset dict to what the model takes: sampled, augmented clips or whole videos."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms as T
from detectron2.data.detection_utils import read_image
from detectron2.structures import BitMasks, Boxes, Instances

from seqformer.data.augmentation import build_clip_augmentation
from seqformer.data.clip_sampler import ClipSampler
from seqformer.data.rle import decode_mask
from seqformer.errors import InputError

__all__ = ["YTVISDatasetMapper"]

_ATTEMPTS = 10  # clips tried in a video before another video takes its place


class YTVISDatasetMapper:
    """Maps dicts of :func:`seqformer.data.ytvis.load_ytvis_json` to the model's input.

    Args:
        augmentation: sampled once a clip.
        image_format: channel order, "RGB" or "BGR".
        clip_sampler: chooses a training clip's frames; None for whole videos without annotations.
    """

    @configurable
    def __init__(
        self,
        augmentation: T.AugmentationList,
        *,
        image_format: str,
        clip_sampler: ClipSampler | None = None,
    ):
        self.augmentation = augmentation
        self.image_format = image_format
        self.clip_sampler = clip_sampler

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        sampler = ClipSampler(
            cfg.INPUT.SAMPLING_FRAME_NUM,
            cfg.INPUT.SAMPLING_FRAME_RANGE,
            cfg.INPUT.SAMPLING_INTERVAL,
            cfg.INPUT.SAMPLING_FRAME_SHUFFLE,
        )
        return {
            "augmentation": build_clip_augmentation(cfg, is_train),
            "image_format": cfg.INPUT.FORMAT,
            "clip_sampler": sampler if is_train else None,
        }

    def __call__(self, video: dict[str, Any]) -> dict[str, Any] | None:
        """A training clip, or the whole video if there is no clip sampler.

        Returns:
            height, width (pixels of the file), length (T), file_names, video_id, image (list of T uint8
            tensors 3, h, w) and for training instances (list of T Instances of the same N instances:
            gt_boxes, absolute xyxy, right and bottom edge exclusive; gt_classes; gt_masks; gt_ids, -1 where
            not visible). Crowds and instances that no frame of the clip shows are left out. None if no clip
            with an instance was found, upon which Detectron2 takes another video.

        Raises:
            InputError: if a frame cannot be read or has another size than the annotations say.
        """
        if self.clip_sampler is None:
            images, _ = self._read_frames(video, range(video["length"]))
            return self._record(video, range(video["length"]), images)
        for _ in range(_ATTEMPTS):
            frames = self.clip_sampler(video["length"])
            annotations = [
                {a["id"]: a for a in video["annotations"][frame] if not a["iscrowd"]} for frame in frames
            ]
            if not any(annotations):
                continue
            images, transforms = self._read_frames(video, frames)
            instances = _instances(annotations, transforms, tuple(images.shape[-2:]))
            if len(instances[0]):
                return self._record(video, frames, images) | {"instances": instances}
        return None

    def _record(
        self, video: dict[str, Any], frames: list[int] | range, images: torch.Tensor
    ) -> dict[str, Any]:
        return {
            "height": video["height"],
            "width": video["width"],
            "length": len(frames),
            "file_names": [video["file_names"][frame] for frame in frames],
            "video_id": video["video_id"],
            "image": list(images),
        }

    def _read_frames(
        self, video: dict[str, Any], frames: list[int] | range
    ) -> tuple[torch.Tensor, T.TransformList]:
        """Augmented frames (T, 3, h, w), uint8, and the transform they share."""
        images: np.ndarray | None = None
        for index, frame in enumerate(frames):
            image = self._read_frame(video, frame)
            if images is None:
                first = T.AugInput(image)
                transforms = self.augmentation(first)
                image = first.image
                # One array for all: data-loading processes hand it over with a single file descriptor.
                images = np.empty((len(frames), 3, *image.shape[:2]), dtype=np.uint8)
            else:
                image = transforms.apply_image(image)
            images[index] = image.transpose(2, 0, 1)
        return torch.from_numpy(images), transforms

    def _read_frame(self, video: dict[str, Any], frame: int) -> np.ndarray:
        path = video["file_names"][frame]
        try:
            image = np.array(read_image(path, self.image_format))  # a copy, since transforms want to write
        except (OSError, SyntaxError, ValueError) as error:
            reason = str(error).replace("\n", " ")
            raise InputError(f"video {video['video_id']}: frame '{path}' cannot be read: {reason}") from error
        if image.shape[:2] != (video["height"], video["width"]):
            raise InputError(
                f"video {video['video_id']}: frame '{path}' is {image.shape[1]}x{image.shape[0]} pixels, the "
                f"annotations are for {video['width']}x{video['height']}"
            )
        return image


def _instances(
    annotations: list[dict[int, dict[str, Any]]], transforms: T.TransformList, size: tuple[int, int]
) -> list[Instances]:
    """Instances of T frames from the annotations by id of each; those seen nowhere are left out."""
    classes = {id_: a["category_id"] for frame in annotations for id_, a in frame.items()}
    drawn = np.zeros((len(annotations), len(classes), *size), dtype=bool)
    for t, frame in enumerate(annotations):
        for n, id_ in enumerate(classes):
            if id_ in frame:
                drawn[t, n] = transforms.apply_segmentation(decode_mask(frame[id_]["segmentation"]))
    masks = torch.from_numpy(drawn)
    visible = masks.flatten(2).any(dim=2)  # T, N
    kept = visible.any(dim=0)
    if not kept.all():
        masks, visible = masks[:, kept], visible[:, kept]
    labels = torch.tensor(list(classes.values()), dtype=torch.long)[kept]
    ids = torch.arange(len(labels)).expand_as(visible).where(visible, -1)
    boxes = BitMasks(masks.flatten(0, 1)).get_bounding_boxes().tensor.view(*visible.shape, 4)
    return [
        Instances(
            size, gt_boxes=Boxes(boxes[t]), gt_classes=labels, gt_masks=BitMasks(masks[t]), gt_ids=ids[t]
        )
        for t in range(len(annotations))
    ]
