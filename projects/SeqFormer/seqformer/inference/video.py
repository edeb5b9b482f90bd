"""Runs the network over a video: frames are encoded once, clips are decoded and matched."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from seqformer.inference.clip_matching import ClipInstances, ClipMatcher, FinalFrames
from seqformer.inference.memory import frame_bytes
from seqformer.inference.motion_matching import MotionMatcher
from seqformer.inference.postprocess import (
    InferenceOptions,
    scored_classes,
    select_queries,
    without_duplicates,
)
from seqformer.modeling.decoder import DecoderOutput
from seqformer.modeling.network import EncodedFrames, SeqFormerNetwork
from seqformer.structures import EndedInstance

__all__ = ["ENCODED_TOGETHER", "DecodedClip", "VideoInference", "drawn_instances"]

logger = logging.getLogger(__name__)

ENCODED_TOGETHER = 4  # frames; more takes memory and gains nothing on a CPU
_FINISHED_TOGETHER = 8  # frames whose masks are brought to the output's size together


@dataclass(frozen=True)
class DecodedClip:
    """A clip that was decoded and matched.

    Attributes:
        start: its first frame.
        frames: its T frames, encoded.
        outputs: of every decoder layer, for one video and all queries.
        queries: (N,) int64, the queries kept, on the network's device.
        ids: N, of the instances that they are.
    """

    start: int
    frames: EncodedFrames
    outputs: list[DecoderOutput]
    queries: Tensor
    ids: list[int]


def drawn_instances(
    network: SeqFormerNetwork,
    frames: EncodedFrames,
    output: DecoderOutput,
    probabilities: Tensor,
    options: InferenceOptions,
    *,
    duplicates: bool = False,
) -> tuple[Tensor, Tensor]:
    """The instances of one clip: the queries to keep, best first, with their masks.

    Args:
        network: that decoded the clip.
        frames: its T frames.
        output: of the last decoder layer.
        probabilities: (Q, K), of the classes.
        options: which queries are kept.
        duplicates: leave them in, whatever the options say.

    Returns:
        indices of N queries, and mask logits (N, T, h, w), stride 4, padding included.
    """
    queries = select_queries(probabilities, options)
    masks = network.masks(frames, output.instance_queries[0, queries], output.reference[0, :, queries])
    if options.duplicate_iou < 1 and not duplicates:
        kept = without_duplicates(probabilities[queries], masks, options.duplicate_iou, options.num_instances)
        queries, masks = queries[kept], masks[kept]
    return queries, masks


def _matcher(options: InferenceOptions) -> ClipMatcher:
    if not options.motion_weight:
        return ClipMatcher(options.clip_length, options.max_live_instances)
    return MotionMatcher(
        options.clip_length,
        options.max_live_instances,
        weight=options.motion_weight,
        memory=options.motion_memory,
        duplicate_iou=options.duplicate_iou,
        limit=options.num_instances,
    )


class VideoInference:
    """One pass over one video.

    Frames never mix before the decoder, so each goes through backbone, encoder and mask features once,
    however many clips hold it. Without clip matching the video is a single clip.

    Args:
        network: in eval mode.
        options: how results are made.
        length: frames of the video, if known. More or fewer may come: where ``auto_memory_gb`` took a video
            for short and it goes on beyond what fits, it is cut into clips from then on.
        observer: is shown every clip right after it was decoded.
    """

    def __init__(
        self,
        network: SeqFormerNetwork,
        options: InferenceOptions,
        length: int | None = None,
        observer: Callable[[DecodedClip], None] | None = None,
    ):
        self.network = network
        self.options = options
        self._length = length
        self._by_clips = None if options.auto_memory_gb else options.clip_matching  # None: not yet known
        self._observer = observer
        self._matcher = _matcher(options)
        self._frames: list[EncodedFrames] = []
        self._first = 0  # the frame that self._frames begins with
        self._seen = 0  # frames so far
        self._next_start = 0  # first frame of the next clip

    def run(self, images: Iterable[Tensor]) -> Iterator[FinalFrames]:
        """Takes in all frames, (3, h, w) each and of one size, and yields them as they become final."""
        remaining = iter(images)
        while batch := list(islice(remaining, ENCODED_TOGETHER)):
            yield from self.push(batch)
        yield from self.finish()

    @torch.no_grad()
    def push(self, images: list[Tensor]) -> Iterator[FinalFrames]:
        """Takes in the next frames, (3, h, w) each, and yields those that became final by them.

        What it yields must be taken to the end before the next call.
        """
        length, stride = self.options.clip_length, self.options.clip_stride
        self._frames.append(self.network.encode(images))
        self._seen += len(images)
        if self.options.auto_memory_gb and not self._by_clips:
            self._choose()
        while self._by_clips and self._next_start + length <= self._seen:
            self._decode(self._next_start, self._next_start + length)
            yield from self._final(self._next_start + 1)  # a later clip begins later
            self._next_start += stride

    @torch.no_grad()
    def finish(self) -> Iterator[FinalFrames]:
        """Says that no frame follows, and yields the rest; afterwards every instance is retired."""
        length, stride = self.options.clip_length, self.options.clip_stride
        if not self._seen:
            return
        decoded = self._next_start - stride + length if self._next_start else 0
        if decoded < self._seen:
            start = max(self._seen - length, 0) if self._by_clips else 0
            self._decode(start, self._seen)
        self._matcher.finish()
        yield from self._final(self._seen)

    def scores_so_far(self) -> dict[int, Tensor]:
        """Mean class probabilities (K,) of live instances and of those that are not yet popped."""
        return self._matcher.instances()

    def pop_retired(self) -> list[EndedInstance]:
        """The instances that retired since the last call, in order of first appearance."""
        retired = dict(sorted(self._matcher.pop_retired().items()))
        scores: dict[int, list[tuple[int, float]]] = {i: [] for i in retired}
        for i, label, score in scored_classes(retired, self.options):
            scores[i].append((label, score))
        return [EndedInstance(i, classes) for i, classes in scores.items()]

    def state(self) -> dict[str, Any]:
        """What the next frames need of the past, as tensors, numbers, lists and dicts; of bounded size.

        Frames are not in it: those from ``num_final`` on come again.
        """
        matcher = self._matcher.state()
        return {"next_start": self._next_start, "by_clips": self._by_clips, "matcher": matcher}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on where ``state`` was taken; the next frame is number ``num_final``."""
        self._next_start, self._by_clips = state["next_start"], state["by_clips"]
        self._matcher.restore(state["matcher"])
        self._frames, self._first, self._seen = [], self.num_final, self.num_final

    @property
    def num_final(self) -> int:
        """How many frames were yielded."""
        return self._matcher.num_final

    def _choose(self) -> None:
        """Whether the video is cut into clips: unless all of it fits the budget, as far as is known."""
        cost = frame_bytes(self.network, self._frames[-1], self.options.num_drawn)
        frames = max(self._length or 0, self._seen)
        by_clips = self._length is None or frames * cost > 1e9 * self.options.auto_memory_gb
        if by_clips == self._by_clips:
            return
        self._by_clips = by_clips
        known = f"{frames} frames of {cost / 1e6:.1f} MB take {frames * cost / 1e9:.2f} GB"
        clips = f"clips of {self.options.clip_length} frames, stride {self.options.clip_stride}"
        logger.info(
            "%s, MODEL.SeqFormer.AUTO_MEMORY_GB is %g: %s",
            f"length unknown, a frame takes {cost / 1e6:.1f} MB" if self._length is None else known,
            self.options.auto_memory_gb,
            clips if by_clips else "the whole video is one clip",
        )

    def _decode(self, start: int, end: int) -> None:
        frames = EncodedFrames.cat(self._frames)[start - self._first :]
        self._frames, self._first = [frames], start
        frames = frames[: end - start]
        network = self.network
        outputs = network.decode(frames, len(frames))
        output = outputs[-1]
        probabilities = network.classify(-1, output)[0].float().sigmoid()
        chosen, masks = drawn_instances(
            network, frames, output, probabilities, self.options, duplicates=self.options.motion_weight > 0
        )
        if self.options.merge_on_cpu:
            masks = masks.cpu()
        ids = self._matcher.update(ClipInstances(start, probabilities[chosen].cpu(), masks))
        if self._observer is not None:
            rows = [row for row, i in enumerate(ids) if i is not None]
            held = [i for i in ids if i is not None]
            self._observer(DecodedClip(start, frames, outputs, chosen[rows], held))

    def _final(self, end: int) -> Iterator[FinalFrames]:
        """Frames before ``end``, a few at a time."""
        while (frames := self._matcher.pop_final(end, _FINISHED_TOGETHER)) is not None:
            yield frames
