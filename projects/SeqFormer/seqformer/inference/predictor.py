"""From a video's frames to tracked instances."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling import build_model

from seqformer.checkpoint import SeqFormerCheckpointer
from seqformer.data.rle import encode_masks
from seqformer.errors import InputError
from seqformer.inference.postprocess import output_masks
from seqformer.inference.tracing import Trace, trace
from seqformer.inference.video import VideoInference
from seqformer.structures import RLE, Tracklet, VideoResult

__all__ = ["VideoPredictor"]


class VideoPredictor:
    """Finds and tracks the instances of videos.

    Frames are taken in one by one and forgotten; masks are kept as RLE.

    Args:
        cfg: a config with MODEL.WEIGHTS, a file whose tensors fit the model exactly, and INPUT.MIN_SIZE_TEST
            and MAX_SIZE_TEST, the size that frames are brought to.

    Raises:
        InputError: if the weights are missing or do not fit.

    Example:
        >>> predictor = VideoPredictor(load_config("config.yaml", ["MODEL.WEIGHTS", "model.safetensors"]))
        >>> result = predictor(frames)
        >>> [(t.instance_id, t.label, t.score) for t in result.tracklets]
    """

    def __init__(self, cfg: CfgNode):
        if not cfg.MODEL.WEIGHTS:
            raise InputError("no weights: set MODEL.WEIGHTS")
        self.model = build_model(cfg).eval()
        SeqFormerCheckpointer(self.model, strict=True).load(cfg.MODEL.WEIGHTS)
        self.input_format = cfg.INPUT.FORMAT
        self.resize = ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)

    def __call__(self, frames: Iterable[np.ndarray]) -> VideoResult:
        """Tracks the instances of one video.

        Args:
            frames: (H, W, 3) uint8 RGB arrays of one size.

        Raises:
            InputError: if there are no frames, or one has another size.
        """
        inference = VideoInference(self.model, self.model.options)
        source = _Frames(frames, self.resize, self.input_format)
        segmentations: dict[int, list[RLE | None]] = {}
        for final in inference.run(source):
            masks = output_masks(final.mask_logits, source.resized, source.size)
            for instance, mask, present in zip(final.ids, masks.cpu().numpy(), final.present, strict=True):
                track = segmentations.setdefault(instance, [])
                track += [None] * (final.start - len(track))
                track += encode_masks(mask & present[:, None, None].cpu().numpy())
        if not source.count:
            raise InputError("the video has no frames")
        for track in segmentations.values():
            track += [None] * (source.count - len(track))
        tracklets = [Tracklet(i, label, score, segmentations[i]) for i, label, score in inference.results()]
        return VideoResult(*source.size, source.count, tracklets)

    def trace(self, frames: Iterable[np.ndarray], *, with_masks: bool = True) -> Trace:
        """What the decoder looks at in frames, which are one clip; see :func:`seqformer.inference.trace`.

        Args:
            frames: (H, W, 3) uint8 RGB arrays of one size, which is that of the masks, too.
            with_masks: draw the masks, too.

        Raises:
            InputError: if there are no frames, or one has another size.
        """
        frames = list(frames)
        size = frames[0].shape[:2] if frames else None
        source = _Frames(frames, self.resize, self.input_format)
        return trace(self.model, source, size, with_masks=with_masks)


class _Frames:
    """Frames on their way into the network; knows their size and how many have passed."""

    def __init__(self, frames: Iterable[np.ndarray], resize: ResizeShortestEdge, input_format: str):
        self.frames = frames
        self.resize = resize
        self.reverse = input_format == "BGR"
        self.count = 0
        self.size = (0, 0)
        self.resized = (0, 0)

    def __iter__(self) -> Iterator[torch.Tensor]:
        for frame in self.frames:
            if not self.count:
                self.size = frame.shape[:2]
                transform = self.resize.get_transform(frame)
            elif frame.shape[:2] != self.size:
                raise InputError(
                    f"frame {self.count} is {frame.shape[1]}x{frame.shape[0]}, "
                    f"the first is {self.size[1]}x{self.size[0]}: frames must have one size"
                )
            self.count += 1
            image = transform.apply_image(frame[..., ::-1] if self.reverse else frame)
            self.resized = image.shape[:2]
            yield torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))
