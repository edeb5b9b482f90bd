"""Predicts the tracklets of videos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from operator import length_hint
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.modeling import build_model

from seqformer import model_zoo
from seqformer.checkpoints import SeqFormerCheckpointer
from seqformer.data.augmentation import build_resize
from seqformer.errors import InputError
from seqformer.inference.options import InferenceOptions
from seqformer.inference.prediction import VideoPrediction
from seqformer.inference.setup import classes, model_config
from seqformer.inference.streaming import Frame, StreamingPredictor
from seqformer.inference.tracing import trace
from seqformer.inference.video import ENCODED_TOGETHER, DecodedClip
from seqformer.modeling.network import SeqFormerNetwork
from seqformer.structures import Trace

__all__ = ["VideoPredictor"]

_WEIGHT_SUFFIXES = (".pth", ".pkl", ".safetensors")


class VideoPredictor:
    """Segments and tracks the instances of videos.

    Frames are processed as they come and not kept. Masks are kept as RLE.

    Args:
        cfg: a config with MODEL.WEIGHTS, whose tensors must match the model exactly, and
            INPUT.MIN_SIZE_TEST and MAX_SIZE_TEST, the size that frames are resized to.

    Attributes:
        model: the meta-architecture, in eval mode.
        class_names: names by label, from the weights file or Detectron2's metadata; otherwise numbered.

    Raises:
        InputError: if the weights are missing or do not match.

    Examples:
        >>> predictor = VideoPredictor.from_pretrained()
        >>> result = predictor("video.mp4")
        >>> [(t.instance_id, t.class_name, t.score) for t in result.tracklets]
    """

    def __init__(self, cfg: CfgNode):
        if not cfg.MODEL.WEIGHTS:
            raise InputError("no weights: set MODEL.WEIGHTS")
        self.model = build_model(cfg).eval()
        SeqFormerCheckpointer(self.model, strict=True).load(cfg.MODEL.WEIGHTS)
        self.class_names, _ = classes(cfg)
        self.input_format = cfg.INPUT.FORMAT
        self.resize = build_resize(cfg)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        *,
        config_file: str | Path | None = None,
        opts: Sequence[str] = (),
    ) -> VideoPredictor:
        """Creates a predictor from a trained model.

        Args:
            model: the name of a model in :mod:`seqformer.model_zoo`, a weights file (.pth, .pkl or
                .safetensors), or a config file (.yaml) with MODEL.WEIGHTS. By default the shipped model.
            config_file: the config of a weights file; not needed for the shipped weights.
            opts: config overrides, ``KEY VALUE KEY VALUE ...``.

        Raises:
            InputError: if there is no such model, or its files are missing or do not match.

        Examples:
            >>> predictor = VideoPredictor.from_pretrained("model.pth", config_file="config.yaml")
        """
        name = str(model_zoo.SHIPPED_MODEL if model is None else model)
        suffix = Path(name).suffix.lower()
        if suffix in _WEIGHT_SUFFIXES:
            if config_file is None:
                if Path(name).resolve() != model_zoo.get_weights_file(model_zoo.SHIPPED_MODEL).resolve():
                    raise InputError(f"weights '{name}' need a config: give `config_file`")
                config_file = model_zoo.get_config_file(model_zoo.SHIPPED_MODEL)
            return cls(model_config(config_file, name, opts))
        if config_file is not None:
            raise InputError(f"`config_file` needs a weights file, but '{name}' is not one")
        if suffix == ".yaml" and Path(name).is_file():
            return cls(model_config(name, opts=opts))
        return cls(model_config(model_zoo.get_config_file(name), model_zoo.get_weights_file(name), opts))

    @property
    def network(self) -> SeqFormerNetwork:
        """The model's network."""
        return self.model.network

    @property
    def options(self) -> InferenceOptions:
        """The model's inference options."""
        return self.model.options

    def stream(
        self,
        encoded_together: int = 1,
        clip_matching: bool | None = None,
        length: int | None = None,
        observer: Callable[[DecodedClip], None] | None = None,
        tensor_layout: str = "CHW",
    ) -> StreamingPredictor:
        """Returns a streaming predictor, which takes the frames of one video one by one.

        Args:
            encoded_together: frames to encode in one batch; more may be faster on a GPU, but add latency.
            clip_matching: whether to cut the video into clips; by default as in the config.
            length: number of frames, if known; used by MODEL.SeqFormer.AUTO_MEMORY_GB.
            observer: called with each clip right after it is decoded.
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
        video: str | Path | Iterable[Frame],
        observer: Callable[[DecodedClip], None] | None = None,
        *,
        tensor_layout: str = "CHW",
    ) -> VideoPrediction:
        """Segments and tracks the instances of one video.

        Args:
            video: a video file, a folder or a glob pattern of pictures (needs PyAV). Or frames of the same
                size: (H, W, 3) uint8 RGB arrays, PIL images of mode "RGB", or uint8 RGB tensors.
                MODEL.SeqFormer.AUTO_MEMORY_GB uses their number if ``len`` or ``__length_hint__`` gives it.
            observer: called with each clip right after it is decoded, for example a :class:`ClipTracer`.
            tensor_layout: "CHW" or "HWC", the order of dimensions of frames that are tensors.

        Raises:
            InputError: if the video cannot be read or has no frames, or a frame is invalid or its size
                differs from the first.
        """
        if isinstance(video, str | Path):
            from seqformer.video import open_source  # PyAV is not needed for frames

            with open_source(video) as source:
                return replace(self(source, observer), source=video)
        length = length_hint(video) or None
        stream = self.stream(ENCODED_TOGETHER, length=length, observer=observer, tensor_layout=tensor_layout)
        tracklets = stream.tracklets()
        for frame in video:
            tracklets.add(stream.push(frame))
        tracklets.add(stream.finish())
        if stream.size is None:
            raise InputError("the video has no frames")
        return VideoPrediction(**vars(tracklets.result(stream.size)))

    def trace(self, frames: Iterable[Frame], *, with_masks: bool = True, tensor_layout: str = "CHW") -> Trace:
        """Records what the decoder attends to in frames, which form one clip.

        See :func:`seqformer.inference.trace`.

        Args:
            frames: frames as above; masks have the same size.
            with_masks: whether to add the masks.
            tensor_layout: "CHW" or "HWC", the order of dimensions of frames that are tensors.

        Raises:
            InputError: if there are no frames, or a frame is invalid or its size differs from the first.
        """
        stream = self.stream(tensor_layout=tensor_layout)
        images = [stream.prepare(frame) for frame in frames]
        return trace(self.network, self.options, images, stream.size, with_masks=with_masks)
