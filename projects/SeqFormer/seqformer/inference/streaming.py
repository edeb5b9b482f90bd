"""Frames in one by one, results out as soon as they are final."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from detectron2.data.transforms import ResizeShortestEdge
from torch import Tensor

from seqformer.data.rle import encode_masks
from seqformer.errors import InputError
from seqformer.inference.clip_matching import FinalFrames
from seqformer.inference.postprocess import InferenceOptions, output_masks
from seqformer.inference.video import DecodedClip, VideoInference
from seqformer.modeling.network import SeqFormerNetwork
from seqformer.structures import FrameInstance, FrameResult

__all__ = ["StreamingPredictor"]


class StreamingPredictor:
    """Finds and tracks the instances of one video whose end need not be known.

    With clips of L frames that begin every S frames, a frame is final when the first clip that begins with it
    or later has been decoded: L - 1 to L + S - 2 frames after it came, so always L - 1 frames where S is 1.
    Without clip matching a video is one clip, and everything comes at its end. Concatenated, the results are
    those of the whole video: the same ids, masks and scores.

    Nothing that it keeps grows with the video: the encoded frames and the masks of the last clips, and the
    instances in them. An instance that none of these clips holds has ended, for nothing can be matched with
    it.

    Args:
        network: in eval mode.
        options: how results are made.
        resize: brings frames to the size that the network sees.
        input_format: "RGB" or "BGR", what the network takes.
        encoded_together: frames that are encoded in one go; each frame beyond the first adds one of latency.
        length: frames of the video, if known; see ``InferenceOptions.auto_memory_gb``.
        observer: is shown every clip right after it was decoded.

    Example:
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
        resize: ResizeShortestEdge,
        input_format: str = "RGB",
        encoded_together: int = 1,
        length: int | None = None,
        observer: Callable[[DecodedClip], None] | None = None,
    ):
        self._inference = VideoInference(network, options, length, observer)
        self._resize = resize
        self._reverse = input_format == "BGR"
        self._encoded_together = encoded_together
        self._waiting: list[Tensor] = []
        self.count = 0  # frames so far
        self.size: tuple[int, int] | None = None  # height and width of the frames, pixels
        self._resized = (0, 0)

    @property
    def num_final(self) -> int:
        """How many frames are final."""
        return self._inference.num_final

    def push(self, frame: np.ndarray) -> list[FrameResult]:
        """Takes in the next frame.

        Args:
            frame: (H, W, 3) uint8 RGB, of the same size as all before.

        Returns:
            the frames that became final by it, in order.

        Raises:
            InputError: if it has another size than the first; ``finish`` still gives the frames before it.
        """
        self._waiting.append(self.prepare(frame))
        if len(self._waiting) < self._encoded_together:
            return []
        return self._encode()

    def finish(self) -> list[FrameResult]:
        """Says that no frame follows. Returns all that are left; with the last, every instance has ended."""
        results = self._encode() if self._waiting else []
        return results + self._results(self._inference.finish())

    def state(self) -> dict[str, Any]:
        """What it takes to go on in another process, of bounded size, for ``torch.save``.

        Frames are not in it: after ``restore`` the next frame to push is number ``num_final``, from 0.
        """
        return {"inference": self._inference.state(), "size": self.size, "resized": self._resized}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on where ``state`` was taken, with the same ids."""
        self._inference.restore(state["inference"])
        self.size = None if state["size"] is None else tuple(state["size"])
        self._resized = tuple(state["resized"])
        self._waiting, self.count = [], self.num_final

    def prepare(self, frame: np.ndarray) -> Tensor:
        """The next frame (H, W, 3) as the network takes it, (3, h, w); ``push`` does it first of all."""
        if self.size is None:
            self.size = frame.shape[:2]
        elif frame.shape[:2] != self.size:
            raise InputError(
                f"frame {self.count} is {frame.shape[1]}x{frame.shape[0]}, "
                f"the first is {self.size[1]}x{self.size[0]}: frames must have one size"
            )
        self.count += 1
        transform = self._resize.get_transform(frame)
        image = transform.apply_image(frame[..., ::-1] if self._reverse else frame)
        self._resized = image.shape[:2]
        return torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))

    def _encode(self) -> list[FrameResult]:
        images, self._waiting = self._waiting, []
        return self._results(self._inference.push(images))

    def _results(self, finals: Iterable[FinalFrames]) -> list[FrameResult]:
        results: list[FrameResult] = []
        for final in finals:
            results += self._frames(final)
            results[-1].ended.extend(self._inference.pop_retired())
        return results

    def _frames(self, final: FinalFrames) -> list[FrameResult]:
        masks = output_masks(final.mask_logits, self._resized, self.size)
        masks &= final.present[..., None, None]
        best = {i: (int(p.argmax()), float(p.max())) for i, p in self._inference.scores_so_far().items()}
        results = [FrameResult(final.start + t, [], []) for t in range(masks.shape[1])]
        for instance, mask in zip(final.ids, masks.cpu().numpy(), strict=True):
            for result, rle in zip(results, encode_masks(mask), strict=True):
                if rle is not None:
                    result.instances.append(FrameInstance(instance, *best[instance], rle))
        return results
