"""A predictor that takes frames one by one and returns results as soon as they are final."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data.transforms import Augmentation
from PIL import Image
from torch import Tensor

from seqformer.errors import InputError, check_number
from seqformer.inference.frames import check_tensor_layout, to_rgb_array
from seqformer.inference.options import InferenceOptions
from seqformer.inference.video import DecodedClip, VideoInference
from seqformer.modeling.network import SeqFormerNetwork
from seqformer.structures import FrameResult
from seqformer.tracking import FinalFrames, TrackletBuilder

__all__ = ["Frame", "StreamingPredictor"]

Frame = np.ndarray | Image.Image | Tensor


class StreamingPredictor:
    """Segments and tracks the instances of one video of any length.

    With clips of L frames that begin every S frames, a frame is final once the first clip that begins at or
    after it is decoded: L - 1 to L + S - 2 frames later, so always L - 1 frames if S is 1. Without clip
    matching a video is one clip, and all results are returned at its end. Concatenated, the results equal
    those of the whole video: the same ids, masks and scores.

    Memory use does not grow with the length of the video: only the encoded frames, masks and instances of
    the last clips are kept. An instance ends when none of these clips contains it.

    Args:
        network: the network, in eval mode.
        options: inference options.
        resize: resizes frames for the network.
        input_format: channel order of the network's input, "RGB" or "BGR".
        encoded_together: frames to encode in one batch; each frame beyond the first adds a frame of latency.
        length: number of frames, if known; see ``InferenceOptions.auto_memory_gb``.
        observer: called with each clip right after it is decoded.
        tensor_layout: "CHW" or "HWC", the order of dimensions of frames that are tensors.
        class_names: names by label; classes without a name are numbered.

    Raises:
        InputError: if the format or layout is unknown.

    Examples:
        >>> stream = VideoPredictor(cfg).stream()
        >>> for frame in camera:
        ...     for result in stream.push(frame):
        ...         print(result.index, [(i.instance_id, i.label, i.score) for i in result.instances])
        >>> last = stream.finish()
    """

    def __init__(
        self,
        network: SeqFormerNetwork,
        options: InferenceOptions,
        *,
        resize: Augmentation,
        input_format: str = "RGB",
        encoded_together: int = 1,
        length: int | None = None,
        observer: Callable[[DecodedClip], None] | None = None,
        tensor_layout: str = "CHW",
        class_names: Sequence[str] = (),
    ):
        if input_format not in ("RGB", "BGR"):
            raise InputError(f"`input_format` must be RGB or BGR, not {input_format!r}")
        check_number("encoded_together", encoded_together, integer=True, at_least=1)
        check_tensor_layout(tensor_layout)
        self._inference = VideoInference(network, options, length, observer)
        self._resize = resize
        self._reverse = input_format == "BGR"
        self._encoded_together = encoded_together
        self._tensor_layout = tensor_layout
        self._options = options
        self._class_names = class_names
        self._waiting: list[Tensor] = []
        self._finished = False
        self.count = 0  # frames so far
        self.size: tuple[int, int] | None = None  # height and width of the frames, pixels
        self._resized = (0, 0)

    @property
    def num_final(self) -> int:
        """The number of final frames."""
        return self._inference.num_final

    def push(self, frame: Frame) -> list[FrameResult]:
        """Adds the next frame.

        Args:
            frame: an (H, W, 3) uint8 RGB array, a PIL image of mode "RGB", or a uint8 RGB tensor in
                ``tensor_layout``. All frames must have the same size.

        Returns:
            The frames that are final now, in order.

        Raises:
            InputError: if the frame is invalid or its size differs from the first; ``finish`` still returns
                the frames before it. Also raised after ``finish``.
        """
        self._check_unfinished("push()")
        self._waiting.append(self.prepare(frame))
        if len(self._waiting) < self._encoded_together:
            return []
        return self._encode()

    def finish(self) -> list[FrameResult]:
        """Declares the end of the video, ends all instances, and returns the remaining frames.

        Raises:
            InputError: if it is called twice.
        """
        self._check_unfinished("finish()")
        results = self._encode() if self._waiting else []
        self._finished = True
        return results + self._results(self._inference.finish())

    def tracklets(self) -> TrackletBuilder:
        """Returns a new builder of tracklets for the results of this video."""
        return self._options.tracklets(self._class_names)

    def state(self) -> dict[str, Any]:
        """Returns a state of bounded size for ``torch.save``, to continue in another process.

        It has no frames: after ``restore``, the next frame to push is frame ``num_final``, counted from 0.
        """
        return {"inference": self._inference.state(), "size": self.size, "resized": self._resized}

    def restore(self, state: dict[str, Any]) -> None:
        """Continues from a saved ``state``, with the same ids.

        Raises:
            KeyError, TypeError: if ``state`` is malformed.
        """
        self._inference.restore(state["inference"])
        self.size = None if state["size"] is None else tuple(state["size"])
        self._resized = tuple(state["resized"])
        self._waiting, self.count, self._finished = [], self.num_final, False

    def prepare(self, frame: Frame) -> Tensor:
        """Checks the next frame and converts it to the network's input (3, h, w). Called by ``push``.

        Raises:
            InputError: see ``push``.
        """
        try:
            array = to_rgb_array(frame, self._tensor_layout)
        except InputError as error:
            raise InputError(f"frame {self.count}: {error}") from error
        if self.size is None:
            self.size = array.shape[:2]
        elif array.shape[:2] != self.size:
            raise InputError(
                f"frame {self.count} is {array.shape[1]}x{array.shape[0]}, "
                f"the first is {self.size[1]}x{self.size[0]}: all frames must have the same size"
            )
        self.count += 1
        transform = self._resize.get_transform(array)
        image = transform.apply_image(array[..., ::-1] if self._reverse else array)
        self._resized = image.shape[:2]
        return torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))

    def _check_unfinished(self, call: str) -> None:
        if self._finished:
            raise InputError(
                f"{call} after finish(): the video has ended; create a new stream for another video"
            )

    def _encode(self) -> list[FrameResult]:
        images, self._waiting = self._waiting, []
        return self._results(self._inference.push(images))

    def _results(self, finals: Iterable[FinalFrames]) -> list[FrameResult]:
        results: list[FrameResult] = []
        for final in finals:
            assert self.size is not None  # frames were pushed
            results += self._inference.frame_results(final, self._resized, self.size)
        return results
