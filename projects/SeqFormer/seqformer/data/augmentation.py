"""Augmentation of clips: a random transform is sampled once and applied to every frame."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from fvcore.transforms.transform import NoOpTransform, Transform

from seqformer.errors import InputError

__all__ = [
    "RandomClipSaturation",
    "ResizeShortSide",
    "SaturationTransform",
    "augment_frames",
    "build_clip_augmentation",
    "build_resize",
]

_INTENSITY = (0.9, 1.1)  # of brightness, contrast and saturation
_ANGLE = [-15.0, 15.0]  # degrees
_ROTATION_CENTER = [(0.4, 0.4), (0.6, 0.6)]  # relative
_LUMA_RGB = (0.299, 0.587, 0.114)
_SUFFIX = "_by_clip"
_CROP_TYPES = ("absolute", "absolute_range", "relative", "relative_range")
# CROP.TYPE "absolute_range", as published: half of the clips are first resized to one of these short sides
# and cropped.
_CROP_SHORT_SIDES = (400, 500, 600)
_CROP_PROBABILITY = 0.5


class SaturationTransform(Transform):
    """Blends an image with its own grey version.

    Detectron2's BlendTransform stores the grey version of one image, so it cannot be applied to other frames.

    Args:
        weight: weight of the image; 0 is grey, above 1 increases saturation.
        luma: weights of the three channels, in the image's order.
    """

    def __init__(self, weight: float, luma: tuple[float, float, float]):
        super().__init__()
        self.weight = weight
        self.luma = np.asarray(luma, dtype=np.float32)

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        grey = (img @ self.luma)[..., np.newaxis]
        blend = self.weight * img.astype(np.float32) + (1 - self.weight) * grey
        return np.clip(blend, 0, 255).astype(img.dtype)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return segmentation

    def inverse(self) -> Transform:
        return NoOpTransform()


class RandomClipSaturation(T.Augmentation):
    """Changes the saturation of a clip.

    Args:
        low, high: range of the image's weight; see :class:`SaturationTransform`.
        bgr: whether the channel order is blue, green, red.
    """

    def __init__(self, low: float, high: float, bgr: bool = False):
        super().__init__()
        self.low = low
        self.high = high
        self.luma = _LUMA_RGB[::-1] if bgr else _LUMA_RGB

    def get_transform(self, image: np.ndarray) -> Transform:
        return SaturationTransform(self._rand_range(self.low, self.high), self.luma)


class ResizeShortSide(T.Augmentation):
    """Resizes the shorter side and rounds the longer one down, as the original release does in inference.

    Detectron2's ResizeShortestEdge rounds to the nearest size and limits the longer side.

    Args:
        size: of the shorter side, pixels.
    """

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def get_transform(self, image: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        short = min(height, width)
        new = (self.size * height // short, self.size * width // short)
        return NoOpTransform() if new == (height, width) else T.ResizeTransform(height, width, *new)


def build_resize(cfg: CfgNode) -> T.Augmentation:
    """Returns the resize of frames in inference, from ``INPUT.MIN_SIZE_TEST`` and ``MAX_SIZE_TEST``.

    With RESULT_PROTOCOL "original" it is the original release's, which has no MAX_SIZE_TEST.
    """
    options = cfg.INPUT
    if cfg.MODEL.SeqFormer.RESULT_PROTOCOL == "original":
        return ResizeShortSide(options.MIN_SIZE_TEST)
    return T.ResizeShortestEdge(options.MIN_SIZE_TEST, options.MAX_SIZE_TEST, "choice")


def build_clip_augmentation(cfg: CfgNode, is_train: bool) -> T.AugmentationList:
    """Builds the augmentation of clips from ``cfg.INPUT``.

    Called with the AugInput of the first frame, it samples and returns a TransformList, to be applied to the
    other frames and the masks. The order is crop (CROP), flip (RANDOM_FLIP), resize (MIN_SIZE_*, MAX_SIZE_*),
    AUGMENTATIONS ("brightness", "contrast", "saturation", "rotation"). Every choice is made once a clip, so
    "choice" means the same as "choice_by_clip". CROP.TYPE "absolute_range" is the published scheme: half of
    the clips are resized to a short side of 400, 500 or 600 and cropped to sides between the two values of
    CROP.SIZE. Other types crop every clip.

    Raises:
        InputError: if a value is not one of these.
    """
    options = cfg.INPUT
    if not is_train:
        return T.AugmentationList([build_resize(cfg)])
    augmentations: list[T.Augmentation] = []
    if options.CROP.ENABLED:
        augmentations.append(_crop(options.CROP.TYPE, options.CROP.SIZE))
    augmentations += _flip(options.RANDOM_FLIP)
    augmentations.append(_resize(options))
    photometric = {
        "brightness": lambda: T.RandomBrightness(*_INTENSITY),
        "contrast": lambda: T.RandomContrast(*_INTENSITY),
        "saturation": lambda: RandomClipSaturation(*_INTENSITY, bgr=options.FORMAT == "BGR"),
        "rotation": lambda: T.RandomRotation(_ANGLE, expand=False, center=_ROTATION_CENTER),
    }
    for name in options.AUGMENTATIONS:
        if name not in photometric:
            raise InputError(
                f"INPUT.AUGMENTATIONS: no augmentation '{name}'; available: {', '.join(photometric)}"
            )
        augmentations.append(photometric[name]())
    return T.AugmentationList(augmentations)


def augment_frames(
    augmentation: T.AugmentationList, frames: Iterable[np.ndarray], num_frames: int
) -> tuple[torch.Tensor, T.TransformList]:
    """Samples a transform with the first frame and applies it to all frames.

    Args:
        augmentation: as returned by :func:`build_clip_augmentation`.
        frames: T images (H, W, 3) uint8, writable; read one at a time.
        num_frames: T.

    Returns:
        (T, 3, h, w) uint8, and the transform to apply to the masks.
    """
    images: np.ndarray | None = None
    for index, frame in enumerate(frames):
        if images is None:
            first = T.AugInput(frame)
            transforms = augmentation(first)
            frame = first.image
            # One array for all frames, so that data-loading processes pass it on with one file descriptor.
            images = np.empty((num_frames, 3, *frame.shape[:2]), dtype=np.uint8)
        else:
            frame = transforms.apply_image(frame)
        images[index] = frame.transpose(2, 0, 1)
    return torch.from_numpy(images), transforms


def _crop(kind: str, size: tuple[float, float]) -> T.Augmentation:
    if len(size) != 2 or kind not in _CROP_TYPES:
        raise InputError(
            f"INPUT.CROP.TYPE must be one of {', '.join(_CROP_TYPES)} and SIZE two numbers, not '{kind}' and "
            f"{tuple(size)}"
        )
    if kind != "absolute_range":
        return T.RandomCrop(kind, size)
    if size[0] > size[1]:
        raise InputError(f"INPUT.CROP.SIZE of absolute_range must be in increasing order, not {tuple(size)}")
    resize = T.ResizeShortestEdge(_CROP_SHORT_SIDES, sample_style="choice")
    return T.RandomApply(T.AugmentationList([resize, T.RandomCrop(kind, size)]), _CROP_PROBABILITY)


def _resize(options: CfgNode) -> T.Augmentation:
    style = options.MIN_SIZE_TRAIN_SAMPLING.removesuffix(_SUFFIX)
    sizes = options.MIN_SIZE_TRAIN
    if style not in ("choice", "range"):
        raise InputError(
            "INPUT.MIN_SIZE_TRAIN_SAMPLING must be choice_by_clip, range_by_clip, choice or range, "
            f"not '{options.MIN_SIZE_TRAIN_SAMPLING}'"
        )
    if style == "range" and not isinstance(sizes, int) and len(sizes) != 2:
        raise InputError(f"INPUT.MIN_SIZE_TRAIN must be two sizes for a range, not {tuple(sizes)}")
    return T.ResizeShortestEdge(sizes, options.MAX_SIZE_TRAIN, style)


def _flip(name: str) -> list[T.Augmentation]:
    if name == "none":
        return []
    if name in ("flip" + _SUFFIX, "horizontal"):
        return [T.RandomFlip(horizontal=True, vertical=False)]
    if name == "vertical":
        return [T.RandomFlip(horizontal=False, vertical=True)]
    raise InputError(f"INPUT.RANDOM_FLIP must be flip_by_clip, horizontal, vertical or none, not '{name}'")
