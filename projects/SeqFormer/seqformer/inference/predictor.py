"""From a video's frames to tracked instances."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from operator import length_hint

import numpy as np
from detectron2.config import CfgNode
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling import build_model

from seqformer.checkpoint import SeqFormerCheckpointer
from seqformer.errors import InputError
from seqformer.inference.postprocess import InferenceOptions, best_results
from seqformer.inference.streaming import StreamingPredictor
from seqformer.inference.tracing import Trace, trace
from seqformer.inference.video import ENCODED_TOGETHER, DecodedClip
from seqformer.modeling.network import SeqFormerNetwork
from seqformer.structures import RLE, FrameResult, Tracklet, VideoResult

__all__ = ["TrackCollector", "VideoPredictor"]


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

    @property
    def network(self) -> SeqFormerNetwork:
        """The model's network, which is all that inference runs."""
        return self.model.network

    @property
    def options(self) -> InferenceOptions:
        """How the model makes results of queries."""
        return self.model.options

    def stream(
        self,
        encoded_together: int = 1,
        clip_matching: bool | None = None,
        length: int | None = None,
        observer: Callable[[DecodedClip], None] | None = None,
    ) -> StreamingPredictor:
        """A predictor of one video that takes frames one by one.

        Args:
            encoded_together: frames that are encoded in one go; more may be faster on a GPU, and come later.
            clip_matching: whether the video is cut into clips, in the place of the config's word.
            length: frames of the video, if known; with MODEL.SeqFormer.AUTO_MEMORY_GB it decides on clips.
            observer: is shown every clip right after it was decoded.
        """
        options = self.options
        if clip_matching is not None:
            options = replace(options, clip_matching=clip_matching, auto_memory_gb=0.0)
        return StreamingPredictor(
            self.network,
            options,
            resize=self.resize,
            input_format=self.input_format,
            encoded_together=encoded_together,
            length=length,
            observer=observer,
        )

    def __call__(
        self, frames: Iterable[np.ndarray], observer: Callable[[DecodedClip], None] | None = None
    ) -> VideoResult:
        """Tracks the instances of one video.

        Args:
            frames: (H, W, 3) uint8 RGB arrays of one size. With MODEL.SeqFormer.AUTO_MEMORY_GB what they say
                of their number (``len``, or ``__length_hint__``) decides on clips.
            observer: is shown every clip right after it was decoded, such as a :class:`ClipTracer`.

        Raises:
            InputError: if there are no frames, or one has another size.
        """
        stream = self.stream(ENCODED_TOGETHER, length=length_hint(frames) or None, observer=observer)
        tracks = TrackCollector()
        for frame in frames:
            tracks.add(stream.push(frame))
        tracks.add(stream.finish())
        if stream.size is None:
            raise InputError("the video has no frames")
        return tracks.result(stream.size, stream.count, self.options)

    def trace(self, frames: Iterable[np.ndarray], *, with_masks: bool = True) -> Trace:
        """What the decoder looks at in frames, which are one clip; see :func:`seqformer.inference.trace`.

        Args:
            frames: (H, W, 3) uint8 RGB arrays of one size, which is that of the masks, too.
            with_masks: draw the masks, too.

        Raises:
            InputError: if there are no frames, or one has another size.
        """
        stream = self.stream()
        images = [stream.prepare(frame) for frame in frames]
        return trace(self.network, self.options, images, stream.size, with_masks=with_masks)


class TrackCollector:
    """Gathers frames' results into tracklets; forgets masks of an instance that ends without a result."""

    def __init__(self) -> None:
        self._masks: dict[int, dict[int, RLE]] = {}  # by instance and frame
        self._results: list[tuple[int, int, float]] = []

    def add(self, frames: Iterable[FrameResult]) -> None:
        """Takes in the next frames."""
        for frame in frames:
            for instance in frame.instances:
                self._masks.setdefault(instance.instance_id, {})[frame.index] = instance.mask
            for ended in frame.ended:
                self._results += [(ended.instance_id, label, score) for label, score in ended.scores]
                if not ended.scores:
                    self._masks.pop(ended.instance_id, None)

    def result(self, size: tuple[int, int], length: int, options: InferenceOptions) -> VideoResult:
        """The video's tracklets.

        Args:
            size: height and width of the frames, pixels.
            length: frames of the video.
            options: those that the frames' results were made with.
        """
        segmentations: dict[int, list[RLE | None]] = {}
        tracklets = []
        for i, label, score in best_results(self._results, options):
            if i not in segmentations:
                masks = self._masks.get(i, {})
                segmentations[i] = [masks.get(t) for t in range(length)]
            tracklets.append(Tracklet(i, label, score, segmentations[i]))
        return VideoResult(*size, length, tracklets)
