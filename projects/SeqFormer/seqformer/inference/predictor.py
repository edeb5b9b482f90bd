"""Predicts the tracklets of videos."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from operator import length_hint
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.modeling import build_model

from seqformer import model_zoo
from seqformer.checkpoints import SeqFormerCheckpointer, model_metadata, push_model, write_model
from seqformer.data.augmentation import build_resize
from seqformer.errors import InputError
from seqformer.inference.options import InferenceOptions
from seqformer.inference.prediction import VideoPrediction
from seqformer.inference.setup import classes, is_weights_file, model_config
from seqformer.inference.streaming import Frame, StreamingPredictor
from seqformer.inference.tracing import trace
from seqformer.inference.video import DecodedClip, frames_together
from seqformer.modeling.network import SeqFormerNetwork
from seqformer.structures import Trace

__all__ = ["VideoPredictor"]

logger = logging.getLogger(__name__)


class VideoPredictor:
    """Segments and tracks the instances of videos.

    Frames are processed as they come and not kept. Masks are kept as RLE.

    Args:
        cfg: a config with MODEL.WEIGHTS, whose tensors must match the model exactly, and
            INPUT.MIN_SIZE_TEST and MAX_SIZE_TEST, the size that frames are resized to.

    Attributes:
        cfg: the config.
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
        self.model.reduce_precision()
        self.cfg = cfg
        self.class_names, self._category_ids = classes(cfg)
        self._notice = ""  # logged once, before the first video
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
            model: the name of a model in :data:`seqformer.model_zoo.MODELS`; a weights file (.pth, .pkl or
                .safetensors) or its address (``https://``, ``hf://OWNER/REPO``, ``gdrive://ID``); or a config
                file (.yaml) with MODEL.WEIGHTS. By default the shipped model.
            config_file: the config of a weights file; not needed if the file has it.
            opts: config overrides, ``KEY VALUE KEY VALUE ...``.

        Raises:
            InputError: if there is no such model, or its files are missing or do not match.

        Examples:
            >>> predictor = VideoPredictor.from_pretrained("released/seqformer_R50_joint")
            >>> predictor = VideoPredictor.from_pretrained("model.pth", config_file="config.yaml")
        """
        if config_file is not None:
            if model is None or not is_weights_file(model):
                raise InputError(f"`config_file` needs a weights file, but '{model}' is not one")
            return cls(model_config(config_file, model, opts))
        if model is not None and Path(model).suffix.lower() == ".yaml" and Path(model).is_file():
            return cls(model_config(model, opts=opts))
        predictor = cls(model_config(opts=opts, model=model))
        if model is None and "MODEL.WEIGHTS" not in opts[::2]:
            suggestion = f"VideoPredictor.from_pretrained('{model_zoo.SUGGESTED_MODEL}')"
            predictor._notice = f"{model_zoo.SHIPPED_NOTICE}: {suggestion}"
        return predictor

    def save(self, path: str | Path, *, license: str = "", half: bool = False) -> None:
        """Saves the model as one .safetensors file, which :meth:`from_pretrained` loads without a config.

        Its metadata has the config, class names, preprocessing and ``license``.

        Args:
            path: the .safetensors file.
            license: licence of the weights, such as "Apache-2.0".
            half: save float16, half the size; results may change slightly.

        Raises:
            InputError: if the file cannot be written, or MODEL.SeqFormer.PRECISION is not "fp32".
        """
        self._check_savable()
        metadata = model_metadata(
            self.class_names, self.cfg, category_ids=self._category_ids, license=license
        )
        write_model(path, self.model.state_dict(), metadata, half=half)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        license: str = "",
        half: bool = False,
        private: bool = False,
        token: str | None = None,
    ) -> str:
        """Uploads the model to the Hugging Face Hub, as :meth:`save` writes it. Needs huggingface_hub.

        Args:
            repo_id: "OWNER/REPO"; created if it does not exist.
            license: licence of the weights, such as "Apache-2.0".
            half: upload float16.
            private: make a new repository private.
            token: access token; by default that of ``hf auth login``.

        Returns:
            the address for :meth:`from_pretrained`, ``hf://OWNER/REPO``.

        Raises:
            InputError: if huggingface_hub is missing, the upload fails, or MODEL.SeqFormer.PRECISION is not
                "fp32".
        """

        self._check_savable()

        def write(path: Path) -> None:
            self.save(path, license=license, half=half)

        return push_model(repo_id, write, self.class_names, license=license, private=private, token=token)

    def _check_savable(self) -> None:
        if self.model.precision != "fp32":
            raise InputError(
                f"the weights have been reduced to {self.model.precision}: save a model with "
                "MODEL.SeqFormer.PRECISION fp32"
            )

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
        self._say_notice()
        return self._stream(encoded_together, clip_matching, length, observer, tensor_layout)

    def _stream(
        self,
        encoded_together: int,
        clip_matching: bool | None,
        length: int | None,
        observer: Callable[[DecodedClip], None] | None,
        tensor_layout: str,
    ) -> StreamingPredictor:
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
                self._say_notice(source.paths)
                return replace(self._predict(source, observer), source=video)
        self._say_notice()
        return self._predict(video, observer, tensor_layout)

    def _predict(
        self,
        video: Iterable[Frame],
        observer: Callable[[DecodedClip], None] | None,
        tensor_layout: str = "CHW",
    ) -> VideoPrediction:
        length = length_hint(video) or None
        stream = self._stream(frames_together(self.network.device), None, length, observer, tensor_layout)
        tracklets = stream.tracklets()
        for frame in video:
            tracklets.add(stream.push(frame))
        tracklets.add(stream.finish())
        if stream.size is None:
            raise InputError("the video has no frames")
        return VideoPrediction(**vars(tracklets.result(stream.size)))

    def _say_notice(self, paths: Sequence[Path] = ()) -> None:
        """Logs the notice before the first video, unless it is the shipped model's."""
        if self._notice and not (paths and all(map(model_zoo.is_shipped_video, paths))):
            logger.warning(self._notice)
            self._notice = ""

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
