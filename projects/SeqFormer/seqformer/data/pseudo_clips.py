"""Clips made of images: an image and random warps of it, with the same instances."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms as T

from seqformer.data.augmentation import augment_frames, build_clip_augmentation
from seqformer.data.mapper import ATTEMPTS, clip_instances, read_picture
from seqformer.errors import InputError
from seqformer.formats.rle import decode_mask, to_rle

__all__ = ["MAX_INSTANCES", "CocoClipDatasetMapper", "num_instances"]

MAX_INSTANCES = 25  # images with more are not trained on

_PRETRAIN_TYPE = "affine"


def num_instances(image: dict[str, Any]) -> int:
    """Returns the number of instances, without crowds, in an image's dataset dict."""
    return sum(not annotation.get("iscrowd", 0) for annotation in image["annotations"])


class CocoClipDatasetMapper:
    """Maps Detectron2's dataset dicts of images to training clips: the image and T - 1 warps of it, shuffled.

    Source: the released recipe of SeqFormer (paper, section 4.2, joint training with COCO). The warped frames
    are then augmented like those of videos, with one transform for all frames.

    Args:
        augmentation: sampled once per clip.
        image_format: channel order, "RGB" or "BGR".
        num_frames: frames in a clip, T.

    Raises:
        InputError: if OpenCV, which warps the images, is not installed.
    """

    @configurable
    def __init__(self, augmentation: T.AugmentationList, *, image_format: str, num_frames: int):
        if importlib.util.find_spec("cv2") is None:
            raise InputError("training on images needs OpenCV: pip install opencv-python-headless")
        self.augmentation = augmentation
        self.image_format = image_format
        self.num_frames = num_frames

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        if cfg.INPUT.PRETRAIN_TYPE != _PRETRAIN_TYPE:
            raise InputError(
                f"INPUT.PRETRAIN_TYPE must be '{_PRETRAIN_TYPE}', not '{cfg.INPUT.PRETRAIN_TYPE}'"
            )
        return {
            "augmentation": build_clip_augmentation(cfg, is_train=True),
            "image_format": cfg.INPUT.FORMAT,
            "num_frames": cfg.INPUT.SAMPLING_FRAME_NUM,
        }

    def __call__(self, record: dict[str, Any]) -> dict[str, Any] | None:
        """Returns a training clip made from an image.

        Args:
            record: file_name, height, width, image_id and annotations: dicts with segmentation (polygons or
                RLE), category_id (0-based, contiguous) and iscrowd.

        Returns:
            the dict of :meth:`seqformer.data.mapper.YTVISDatasetMapper.__call__`, with image_id instead of
            video_id. The id is -1 in frames from which an instance was warped or cropped away. None if no
            instance remained after several attempts, or the image does not have 1 to 25 instances.

        Raises:
            InputError: if the file cannot be read, its size differs from the annotations, or a segmentation
                is malformed; the message names image and annotation.
        """
        from seqformer.data.warps import Warp  # needs OpenCV, unlike video datasets

        annotations = [a for a in record["annotations"] if not a.get("iscrowd", 0)]
        if not 1 <= len(annotations) <= MAX_INSTANCES:
            return None
        size = (record["height"], record["width"])
        what = f"image {record['image_id']}"
        image = read_picture(record["file_name"], self.image_format, size, f"{what}: file")
        masks = np.stack(
            [_decode(a, size, f"{what}, file '{record['file_name']}'", n) for n, a in enumerate(annotations)]
        )
        for _ in range(ATTEMPTS):
            warps = [None] + [Warp(*size, self.image_format == "BGR") for _ in range(self.num_frames - 1)]
            warps = [warps[index] for index in np.random.permutation(self.num_frames)]
            frames = (image.copy() if warp is None else warp.image(image) for warp in warps)
            images, transforms = augment_frames(self.augmentation, frames, self.num_frames)
            warped = np.empty((self.num_frames, len(masks), *images.shape[-2:]), dtype=bool)
            for t, warp in enumerate(warps):
                for n, mask in enumerate(masks if warp is None else warp.masks(masks)):
                    warped[t, n] = transforms.apply_segmentation(mask.view(np.uint8))
            instances = clip_instances(warped, [a["category_id"] for a in annotations])
            if len(instances[0]):
                return {
                    "height": record["height"],
                    "width": record["width"],
                    "length": self.num_frames,
                    "file_names": [record["file_name"]] * self.num_frames,
                    "image_id": record["image_id"],
                    "image": list(images),
                    "instances": instances,
                }
        return None


def _decode(annotation: dict[str, Any], size: tuple[int, int], where: str, index: int) -> np.ndarray:
    """Returns the mask of an annotation, (H, W) bool."""
    name = f"{where}, annotation {annotation.get('id', f'number {index}')}"
    try:
        rle = to_rle(annotation.get("segmentation"), *size)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    if rle is None:
        raise InputError(f"{name}: no segmentation")
    return decode_mask(rle).astype(bool)
