"""Runs the network over a video: frames are encoded once, clips are decoded and matched."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from seqformer.inference.memory import frame_bytes
from seqformer.inference.options import InferenceOptions
from seqformer.inference.postprocess import (
    encode_outputs,
    scored_classes,
    select_queries,
    without_duplicates,
)
from seqformer.modeling.decoder import DecoderOutput
from seqformer.modeling.network import EncodedFrames, SeqFormerNetwork
from seqformer.structures import EndedInstance, FrameInstance, FrameResult
from seqformer.tracking import (
    ClipInstances,
    FinalFrames,
    InstanceStore,
    assign_by_motion,
    assign_by_overlap,
    fits_one_clip,
    plan_clips,
)

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


class VideoInference:
    """One pass over one video.

    Frames never mix before the decoder, so each goes through backbone, encoder and mask features once,
    however many clips hold it. Without clip matching the video is a single clip.

    Args:
        network: in eval mode.
        options: how the video is cut into clips, and which queries are results.
        length: frames of the video, if known. More or fewer may come. If ``auto_memory_gb`` has decided on
            one clip and the video continues beyond what fits, it is cut into clips from then on.
        observer: called with every clip right after it was decoded.
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
        self._by_clips = None if options.auto_memory_gb else options.clip_matching  # None: not decided yet
        self._observer = observer
        motion = options.motion if options.by_motion else None
        self._store = InstanceStore(options.clip_length, options.max_live_instances, motion)
        self._frames: list[EncodedFrames] = []
        self._first = 0  # number of the first of self._frames
        self._seen = 0  # frames so far
        self._next_start = 0  # first frame of the next clip

    def run(self, images: Iterable[Tensor]) -> Iterator[FinalFrames]:
        """Yields all frames as they become final, from frames (3, h, w) of one size."""
        remaining = iter(images)
        while batch := list(islice(remaining, ENCODED_TOGETHER)):
            yield from self.push(batch)
        yield from self.finish()

    @torch.no_grad()
    def push(self, images: list[Tensor]) -> Iterator[FinalFrames]:
        """Adds the next frames, (3, h, w) each, and yields those that become final.

        Exhaust the iterator before the next call.
        """
        length, stride = self.options.clip_length, self.options.clip_stride
        self._frames.append(self.network.encode(images))
        self._seen += len(images)
        if self.options.auto_memory_gb and not self._by_clips:
            self._decide()
        if self._by_clips:
            for clip in plan_clips(self._seen, length, stride, start=self._next_start, ended=False):
                self._decode(clip)
                yield from self._final(clip.start + 1)  # a later clip begins later
                self._next_start = clip.start + stride

    @torch.no_grad()
    def finish(self) -> Iterator[FinalFrames]:
        """Declares the end of the video and yields the remaining frames; then every instance is retired."""
        if not self._seen:
            return
        length = self.options.clip_length if self._by_clips else self._seen
        for clip in plan_clips(self._seen, length, self.options.clip_stride, start=self._next_start):
            self._decode(clip)
        self._store.finish()
        yield from self._final(self._seen)

    def frame_results(
        self, final: FinalFrames, image_size: tuple[int, int], output_size: tuple[int, int]
    ) -> list[FrameResult]:
        """Results of frames that have just become final; call it before taking the next ones.

        Args:
            final: the frames, as ``push`` and ``finish`` yield them.
            image_size: height and width that the network saw, without padding.
            output_size: height and width of the masks.
        """
        masks = encode_outputs(final.mask_logits, image_size, output_size, final.present)
        classes = self._store.probabilities()
        best = {i: (int(p.argmax()), float(p.max())) for i, p in classes.items()}
        results = [FrameResult(final.start + t, [], []) for t in range(final.present.shape[1])]
        for i, rles in zip(final.ids, masks, strict=True):
            for result, rle in zip(results, rles, strict=True):
                if rle is not None:
                    result.instances.append(FrameInstance(i, *best[i], rle))
        results[-1].ended.extend(self.pop_retired())
        return results

    def probabilities(self) -> dict[int, Tensor]:
        """Mean class probabilities (K,), by id, of live instances and of those that are not yet popped."""
        return self._store.probabilities()

    def pop_retired(self) -> list[EndedInstance]:
        """The instances that retired since the last call, in order of first appearance."""
        retired = self._store.pop_retired()
        scores: dict[int, list[tuple[int, float]]] = {i: [] for i in retired}
        for i, label, score in scored_classes(retired, self.options):
            scores[i].append((label, score))
        return [EndedInstance(i, classes) for i, classes in scores.items()]

    def state(self) -> dict[str, Any]:
        """What the next frames need of the past, as tensors, numbers, lists and dicts; of bounded size.

        Frames are not part of it: after ``restore`` the next frame to push is number ``num_final``.
        """
        store = self._store.state()
        return {"next_start": self._next_start, "by_clips": self._by_clips, "store": store}

    def restore(self, state: dict[str, Any]) -> None:
        """Continues from ``state``; the next frame is number ``num_final``.

        Raises:
            KeyError, TypeError: if it is not a state.
        """
        self._next_start, self._by_clips = state["next_start"], state["by_clips"]
        self._store.restore(state["store"])
        self._frames, self._first, self._seen = [], self.num_final, self.num_final

    @property
    def num_final(self) -> int:
        """How many frames are final and were yielded."""
        return self._store.num_final

    def _decide(self) -> None:
        """Decides whether the video is one clip, as far as its length is known."""
        cost = frame_bytes(self.network, self._frames[-1], self.options.num_drawn)
        frames = None if self._length is None else max(self._length, self._seen)
        by_clips = not fits_one_clip(frames, cost, 1e9 * self.options.auto_memory_gb)
        if by_clips == self._by_clips:
            return
        self._by_clips = by_clips
        if frames is None:
            known = f"length unknown, a frame takes {cost / 1e6:.1f} MB"
        else:
            known = f"{frames} frames of {cost / 1e6:.1f} MB take {frames * cost / 1e9:.2f} GB"
        clips = f"clips of {self.options.clip_length} frames, stride {self.options.clip_stride}"
        logger.info(
            "%s, MODEL.SeqFormer.AUTO_MEMORY_GB is %g: %s",
            known,
            self.options.auto_memory_gb,
            clips if by_clips else "the whole video is one clip",
        )

    def _decode(self, clip: range) -> None:
        frames = EncodedFrames.cat(self._frames)[clip.start - self._first :]
        self._frames, self._first = [frames], clip.start
        frames = frames[: len(clip)]
        outputs = self.network.decode(frames, len(frames))
        output = outputs[-1]
        probabilities = self.network.classify(-1, output)[0].float().sigmoid()
        chosen, masks = drawn_instances(
            self.network, frames, output, probabilities, self.options, duplicates=self.options.by_motion
        )
        if self.options.merge_on_cpu:
            masks = masks.cpu()
        ids = self._add(ClipInstances(clip.start, probabilities[chosen].cpu(), masks))
        if self._observer is not None:
            rows = [row for row, i in enumerate(ids) if i is not None]
            kept = [i for i in ids if i is not None]
            self._observer(DecodedClip(clip.start, frames, outputs, chosen[rows], kept))

    def _add(self, clip: ClipInstances) -> Sequence[int | None]:
        """Assigns the instances of the next clip to those of the video; returns their ids."""
        options = self.options
        ids: Sequence[int | None]
        if options.by_motion:
            ids = assign_by_motion(
                self._store,
                clip,
                options.motion,
                duplicate_iou=options.duplicate_iou,
                limit=options.num_instances,
            )
        else:
            ids = assign_by_overlap(self._store, clip)
        self._store.add(clip, ids)
        return ids

    def _final(self, end: int) -> Iterator[FinalFrames]:
        """Frames before ``end``, a few at a time."""
        while (frames := self._store.pop_final(end, _FINISHED_TOGETHER)) is not None:
            yield frames
