"""From a video's frames to tracked instances."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from operator import length_hint

from detectron2.config import CfgNode
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling import build_model

from seqformer.checkpoints import SeqFormerCheckpointer
from seqformer.errors import InputError
from seqformer.inference.classes import classes
from seqformer.inference.options import InferenceOptions
from seqformer.inference.streaming import Frame, StreamingPredictor
from seqformer.inference.tracing import Trace, trace
from seqformer.inference.video import ENCODED_TOGETHER, DecodedClip
from seqformer.modeling.network import SeqFormerNetwork
from seqformer.structures import VideoResult

__all__ = ["VideoPredictor"]


class VideoPredictor:
    """Segments and tracks the instances of videos.

    Frames are processed one by one and forgotten; masks are kept as RLE.

    Args:
        cfg: a config with MODEL.WEIGHTS, a file whose tensors fit the model exactly, and INPUT.MIN_SIZE_TEST
            and MAX_SIZE_TEST, the size that frames are resized to.

    Attributes:
        model: the meta-architecture, in eval mode.
        class_names: by label: those that the weights carry or that Detectron2 knows, else numbers.

    Raises:
        InputError: if the weights are missing or do not fit.

    Example:
        >>> predictor = VideoPredictor(load_config("config.yaml", ["MODEL.WEIGHTS", "model.safetensors"]))
        >>> result = predictor(frames)
        >>> [(t.instance_id, t.class_name, t.score) for t in result.tracklets]
    """

    def __init__(self, cfg: CfgNode):
        if not cfg.MODEL.WEIGHTS:
            raise InputError("no weights: set MODEL.WEIGHTS")
        self.model = build_model(cfg).eval()
        SeqFormerCheckpointer(self.model, strict=True).load(cfg.MODEL.WEIGHTS)
        self.class_names, _ = classes(cfg)
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
        tensor_layout: str = "CHW",
    ) -> StreamingPredictor:
        """A predictor of one video that takes frames one by one.

        Args:
            encoded_together: frames that are encoded in one go; more may be faster on a GPU, and come later.
            clip_matching: whether the video is cut into clips; by default what the config says.
            length: frames of the video, if known; with MODEL.SeqFormer.AUTO_MEMORY_GB it decides on clips.
            observer: called with every clip right after it was decoded.
            tensor_layout: "CHW" or "HWC", the order of dimensions of frames that are tensors.
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
            tensor_layout=tensor_layout,
            class_names=self.class_names,
        )

    def __call__(
        self,
        frames: Iterable[Frame],
        observer: Callable[[DecodedClip], None] | None = None,
        *,
        tensor_layout: str = "CHW",
    ) -> VideoResult:
        """Segments and tracks the instances of one video.

        Args:
            frames: (H, W, 3) uint8 RGB arrays, PIL images of mode "RGB", or uint8 RGB tensors, of one size.
                With MODEL.SeqFormer.AUTO_MEMORY_GB, their number (``len``, or ``__length_hint__``) decides on
                clips.
            observer: called with every clip right after it was decoded, such as a :class:`ClipTracer`.
            tensor_layout: "CHW" or "HWC", the order of dimensions of frames that are tensors.

        Raises:
            InputError: if there are no frames, or one of them is something else or has another size.
        """
        length = length_hint(frames) or None
        stream = self.stream(ENCODED_TOGETHER, length=length, observer=observer, tensor_layout=tensor_layout)
        tracklets = stream.tracklets()
        for frame in frames:
            tracklets.add(stream.push(frame))
        tracklets.add(stream.finish())
        if stream.size is None:
            raise InputError("the video has no frames")
        return tracklets.result(stream.size)

    def trace(self, frames: Iterable[Frame], *, with_masks: bool = True, tensor_layout: str = "CHW") -> Trace:
        """Records what the decoder looks at in frames, which are one clip.

        See :func:`seqformer.inference.trace`.

        Args:
            frames: as above, of one size, which is also that of the masks.
            with_masks: whether to add the masks.
            tensor_layout: "CHW" or "HWC", the order of dimensions of frames that are tensors.

        Raises:
            InputError: if there are no frames, or one of them is something else or has another size.
        """
        stream = self.stream(tensor_layout=tensor_layout)
        images = [stream.prepare(frame) for frame in frames]
        return trace(self.network, self.options, images, stream.size, with_masks=with_masks)
