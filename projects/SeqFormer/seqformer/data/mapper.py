"""Maps dataset dicts of videos to the model's input: sampled, augmented clips, or whole videos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Boxes, Instances

from seqformer.data.augmentation import augment_frames, build_clip_augmentation
from seqformer.data.clip_sampler import ClipSampler
from seqformer.errors import InputError
from seqformer.formats.frames import read_frame
from seqformer.formats.rle import decode_mask

__all__ = ["ATTEMPTS", "YTVISDatasetMapper", "clip_instances", "read_picture"]

ATTEMPTS = 10  # clips tried per video or image before another one replaces it


class YTVISDatasetMapper:
    """Maps dicts of :func:`seqformer.data.ytvis.load_ytvis_json` to the model's input.

    Args:
        augmentation: sampled once per clip.
        image_format: channel order, "RGB" or "BGR".
        clip_sampler: selects the frames of a training clip; None for whole videos without annotations.
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
        """Returns a training clip, or the whole video if there is no clip sampler.

        Returns:
            a dict of height, width (pixels of the file), length (T), file_names, video_id, image (list of T
            uint8 tensors (3, h, w)) and, for training, instances: a list of T Instances of the same N
            instances, with gt_boxes (absolute xyxy, right and bottom edges exclusive), gt_classes, gt_masks
            and gt_ids (-1 where not visible). Crowds, and instances not visible in any frame of the clip, are
            dropped. None if no clip with an instance was sampled; another video then replaces this one.

        Raises:
            InputError: if a frame cannot be read, or its size differs from the annotations.
        """
        if self.clip_sampler is None:
            images, _ = self._read_frames(video, range(video["length"]))
            return self._record(video, range(video["length"]), images)
        for _ in range(ATTEMPTS):
            frames = self.clip_sampler(video["length"])
            annotations = [
                {a["id"]: a for a in video["annotations"][frame] if not a["iscrowd"]} for frame in frames
            ]
            if not any(annotations):
                continue
            images, transforms = self._read_frames(video, frames)
            classes = {id_: a["category_id"] for frame in annotations for id_, a in frame.items()}
            height, width = images.shape[-2:]
            masks = _augmented_masks(annotations, list(classes), transforms, (height, width))
            instances = clip_instances(masks, list(classes.values()))
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
        """Returns the augmented frames (T, 3, h, w), uint8, and their common transform."""
        size = (video["height"], video["width"])
        names, what = video["file_names"], f"video {video['video_id']}: frame"
        pictures = (read_picture(names[t], self.image_format, size, what, names) for t in frames)
        return augment_frames(self.augmentation, pictures, len(frames))


def read_picture(
    path: str, image_format: str, size: tuple[int, int], what: str, video: Sequence[str] = ()
) -> np.ndarray:
    """Reads an image file.

    Args:
        path: the file.
        image_format: channel order, "RGB" or "BGR".
        size: expected height and width in pixels.
        what: name of the image in error messages, such as "video 3: frame".
        video: the files of the same video; see :func:`seqformer.formats.frames.read_frame`.

    Returns:
        (H, W, 3) uint8, writable.

    Raises:
        InputError: if the file cannot be read or has another size, or the channel order is a different one.
    """
    if image_format not in ("RGB", "BGR"):
        raise InputError(f"INPUT.FORMAT must be RGB or BGR, not {image_format!r}")
    try:
        image = read_frame(path, video)
    except InputError as error:
        raise InputError(f"{what} {error}") from error
    if image.shape[:2] != size:
        raise InputError(
            f"{what} '{path}' has {image.shape[1]}x{image.shape[0]} pixels, but the annotations are for "
            f"{size[1]}x{size[0]}"
        )
    return np.ascontiguousarray(image[..., ::-1]) if image_format == "BGR" else image


def clip_instances(masks: np.ndarray, labels: Sequence[int]) -> list[Instances]:
    """Returns a clip's ground truth for the model, without instances that are not visible in any frame.

    Args:
        masks: (T, N, h, w) bool, augmented.
        labels: N classes, 0-based.

    Returns:
        T Instances of the same instances; see :meth:`YTVISDatasetMapper.__call__`.
    """
    gt_masks = torch.from_numpy(masks)
    visible = gt_masks.flatten(2).any(dim=2)  # T, N
    kept = visible.any(dim=0)
    if not kept.all():
        gt_masks, visible = gt_masks[:, kept], visible[:, kept]
    classes = torch.tensor(list(labels), dtype=torch.long)[kept]
    ids = torch.arange(len(classes)).expand_as(visible).where(visible, -1)
    boxes = BitMasks(gt_masks.flatten(0, 1)).get_bounding_boxes().tensor.view(*visible.shape, 4)
    size = tuple(masks.shape[-2:])
    return [
        Instances(
            size, gt_boxes=Boxes(boxes[t]), gt_classes=classes, gt_masks=BitMasks(gt_masks[t]), gt_ids=ids[t]
        )
        for t in range(len(masks))
    ]


def _augmented_masks(
    annotations: list[dict[int, dict[str, Any]]],
    identities: Sequence[int],
    transforms: T.TransformList,
    size: tuple[int, int],
) -> np.ndarray:
    """Returns the masks (T, N, h, w) of the instances, given each frame's annotations by id."""
    masks = np.zeros((len(annotations), len(identities), *size), dtype=bool)
    for t, frame in enumerate(annotations):
        for n, identity in enumerate(identities):
            if identity in frame:
                masks[t, n] = transforms.apply_segmentation(decode_mask(frame[identity]["segmentation"]))
    return masks
