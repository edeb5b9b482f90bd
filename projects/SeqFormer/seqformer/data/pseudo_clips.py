"""Images as clips: an image and random warps of it, whose instances keep their identities."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms as T

from seqformer.data.augmentation import augment_frames, build_clip_augmentation
from seqformer.data.mapper import ATTEMPTS, clip_instances, read_picture
from seqformer.data.rle import decode_mask, to_rle
from seqformer.errors import InputError

__all__ = ["MAX_INSTANCES", "CocoClipDatasetMapper", "Warp", "num_instances"]

MAX_INSTANCES = 25  # images with more are not trained on

_PERSPECTIVE = 0.08  # how far a corner moves inwards at most, of the image's sides
_SHIFT = 0.1  # of the image's sides
_ANGLE = 20.0  # degrees
_BRIGHTNESS = 40  # grey levels
_HUE_AND_SATURATION = 5  # of 256
_BLUR_PROBABILITY = 0.25
_BLUR_LENGTHS = (9, 11)  # pixels
_PRETRAIN_TYPE = "affine"


class Warp:
    """One random view of an image, as the original recipe draws it: geometry, colours and motion blur.

    The corners move inwards by up to 8 % of the sides (perspective), then the image turns by up to 20 degrees
    about its centre and moves by up to 10 % of its sides, and black comes in from outside. Then brightness
    changes by up to 40 grey levels, hue and saturation by up to 5 of 256; a quarter of the views is blurred
    along a line of 9 or 11 pixels. Random numbers are NumPy's global ones.

    Args:
        height, width: of the image, pixels.
        bgr: whether channels are in the order blue, green, red.

    Attributes:
        matrix: (3, 3), from pixels of the image to pixels of the view, xy.
    """

    def __init__(self, height: int, width: int, bgr: bool = False):
        self.size = (width, height)
        self.bgr = bgr
        sides = np.array([width, height], dtype=np.float32)
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=np.float32)
        inwards = np.random.uniform(0, _PERSPECTIVE, (4, 2)).astype(np.float32) * (1 - 2 * corners)
        perspective = cv2.getPerspectiveTransform((corners + inwards) * sides, corners * sides)
        center = (width / 2, height / 2)
        motion = np.eye(3)
        motion[:2] = cv2.getRotationMatrix2D(center, np.random.uniform(-_ANGLE, _ANGLE), 1.0)
        motion[:2, 2] += np.random.uniform(-_SHIFT, _SHIFT, 2) * sides
        self.matrix = motion @ perspective
        self.hue, self.saturation = np.random.randint(-_HUE_AND_SATURATION, _HUE_AND_SATURATION + 1, 2)
        self.brightness = np.random.randint(-_BRIGHTNESS, _BRIGHTNESS + 1)
        blurred = np.random.uniform() < _BLUR_PROBABILITY
        self.blur = (
            _line(int(np.random.choice(_BLUR_LENGTHS)), np.random.uniform(0, 180)) if blurred else None
        )

    def image(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 -> the view, of the same size."""
        warped = cv2.warpPerspective(image, self.matrix, self.size, flags=cv2.INTER_LINEAR)
        to_hsv, from_hsv = (
            (cv2.COLOR_BGR2HSV_FULL, cv2.COLOR_HSV2BGR_FULL)
            if self.bgr
            else (cv2.COLOR_RGB2HSV_FULL, cv2.COLOR_HSV2RGB_FULL)
        )
        hue, saturation, value = cv2.split(cv2.cvtColor(warped, to_hsv))
        levels = np.arange(256)
        hue = cv2.LUT(hue, ((levels + self.hue) % 256).astype(np.uint8))
        saturation = cv2.LUT(saturation, (levels + self.saturation).clip(0, 255).astype(np.uint8))
        value = cv2.LUT(value, (levels + self.brightness).clip(0, 255).astype(np.uint8))
        coloured = cv2.cvtColor(cv2.merge((hue, saturation, value)), from_hsv)
        return coloured if self.blur is None else cv2.filter2D(coloured, -1, self.blur)

    def masks(self, masks: np.ndarray) -> np.ndarray:
        """(N, H, W) bool -> (N, H, W) bool, N at most 32."""
        if not len(masks):
            return masks
        # Eight masks in a byte and up to four bytes a pixel are warped at once.
        packed = np.ascontiguousarray(np.packbits(masks, axis=0).transpose(1, 2, 0))
        warped = np.asarray(
            cv2.warpPerspective(packed, self.matrix, self.size, flags=cv2.INTER_NEAREST), dtype=np.uint8
        )
        warped = warped.reshape(packed.shape).transpose(2, 0, 1)
        return np.unpackbits(warped, axis=0, count=len(masks)).astype(bool)


def _line(length: int, angle: float) -> np.ndarray:
    """A blur's kernel (length, length): a line through the centre at an angle in degrees; its sum is 1."""
    kernel = np.zeros((length, length), dtype=np.float32)
    kernel[length // 2] = 1
    turn = cv2.getRotationMatrix2D((length // 2, length // 2), angle, 1.0)
    line = cv2.warpAffine(kernel, turn, (length, length))
    return line / line.sum()


def num_instances(image: dict[str, Any]) -> int:
    """How many instances, crowds left out, an image's dataset dict has."""
    return sum(not annotation.get("iscrowd", 0) for annotation in image["annotations"])


class CocoClipDatasetMapper:
    """Maps Detectron2's dataset dicts of images to training clips: the image and T - 1 warps of it, shuffled.

    Source: the released recipe of SeqFormer (paper, section 4.2, joint training with COCO). After the warps
    comes the same clip augmentation as for videos, one transform for all frames.

    Args:
        augmentation: sampled once a clip.
        image_format: channel order, "RGB" or "BGR".
        num_frames: frames of a clip, T.
    """

    @configurable
    def __init__(self, augmentation: T.AugmentationList, *, image_format: str, num_frames: int):
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
        """A training clip from an image.

        Args:
            record: file_name, height, width, image_id and annotations: dicts with segmentation (polygons or
                RLE), category_id (0-based, contiguous) and iscrowd.

        Returns:
            as :meth:`seqformer.data.mapper.YTVISDatasetMapper.__call__`, with image_id for video_id. An
            instance that is warped or cropped away in a frame has the id -1 there. None if all are in all of
            several clips, or the image has not 1 to 25 instances.

        Raises:
            InputError: names image and annotation if the file cannot be read, has another size than the
                annotations say, or a segmentation is malformed.
        """
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
            drawn = np.empty((self.num_frames, len(masks), *images.shape[-2:]), dtype=bool)
            for t, warp in enumerate(warps):
                for n, mask in enumerate(masks if warp is None else warp.masks(masks)):
                    drawn[t, n] = transforms.apply_segmentation(mask.view(np.uint8))
            instances = clip_instances(drawn, [a["category_id"] for a in annotations])
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
    """The mask (H, W), bool, of an annotation."""
    name = f"{where}, annotation {annotation.get('id', f'number {index}')}"
    try:
        rle = to_rle(annotation.get("segmentation"), *size)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    if rle is None:
        raise InputError(f"{name}: no segmentation")
    return decode_mask(rle).astype(bool)
