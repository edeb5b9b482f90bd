"""Runs the network over a video: frames are encoded once, clips are decoded and matched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from seqformer.inference.clip_matching import ClipInstances, ClipMatcher, FinalFrames
from seqformer.inference.postprocess import InferenceOptions, scored_classes, select_queries
from seqformer.modeling.network import EncodedFrames

if TYPE_CHECKING:
    from seqformer.meta_arch import SeqFormer

__all__ = ["VideoInference"]

_ENCODED_TOGETHER = 4  # frames; more takes memory and gains nothing on a CPU
_FINISHED_TOGETHER = 8  # frames whose masks are brought to the output's size together


class VideoInference:
    """One pass over one video.

    Frames never mix before the decoder, so each goes through backbone, encoder and mask features once,
    however many clips hold it. Without clip matching the video is a single clip.

    Args:
        model: a SeqFormer in eval mode.
        options: how results are made.
    """

    def __init__(self, model: SeqFormer, options: InferenceOptions):
        self.model = model
        self.options = options
        self._matcher = ClipMatcher(options.clip_length)
        self._frames: list[EncodedFrames] = []
        self._first = 0  # the frame that self._frames begins with
        self._seen = 0  # frames so far

    @torch.no_grad()
    def run(self, images: Iterable[Tensor]) -> Iterator[FinalFrames]:
        """Takes in all frames, (3, h, w) each and of one size, and yields them as they become final."""
        length, stride = self.options.clip_length, self.options.clip_stride
        next_start = 0
        remaining = iter(images)
        while batch := list(islice(remaining, _ENCODED_TOGETHER)):
            self._frames.append(self.model.encode(batch))
            self._seen += len(batch)
            while self.options.clip_matching and next_start + length <= self._seen:
                self._decode(next_start, next_start + length)
                yield from self._final(next_start + 1)  # a later clip begins later
                next_start += stride
        if not self._seen:
            return
        decoded = next_start - stride + length if next_start else 0
        if decoded < self._seen:
            start = max(self._seen - length, 0) if self.options.clip_matching else 0
            self._decode(start, self._seen)
        yield from self._final(self._seen)

    def results(self) -> list[tuple[int, int, float]]:
        """Results (instance, class, probability), classes 0-based, in order of first appearance."""
        return scored_classes(self._matcher.instances(), self.options)

    def _decode(self, start: int, end: int) -> None:
        frames = EncodedFrames.cat(self._frames)[start - self._first :]
        self._frames, self._first = [frames], start
        frames = frames[: end - start]
        network = self.model.network
        output = network.decode(frames, len(frames))[-1]
        probabilities = network.classify(-1, output)[0].float().sigmoid()
        chosen = select_queries(probabilities, self.options)
        masks = network.masks(frames, output.instance_queries[0, chosen], output.reference[0, :, chosen])
        if self.options.merge_on_cpu:
            masks = masks.cpu()
        self._matcher.update(ClipInstances(start, probabilities[chosen].cpu(), masks))

    def _final(self, end: int) -> Iterator[FinalFrames]:
        """Frames before ``end``, a few at a time."""
        while (frames := self._matcher.pop_final(end, _FINISHED_TOGETHER)) is not None:
            yield frames
