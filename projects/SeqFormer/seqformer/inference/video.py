"""Runs the network on a video: encodes each frame once, then decodes and matches clips."""

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

__all__ = ["ENCODED_TOGETHER", "DecodedClip", "VideoInference", "frames_together", "select_candidates"]

logger = logging.getLogger(__name__)

ENCODED_TOGETHER = {"cpu": 4, "cuda": 12}  # frames; more need more memory and are not faster
_KEPT_VALUES = 5e8  # bytes of a clip's values up to which overlapping clips share them
_RESIZED_TOGETHER = 8  # frames whose masks are resized to the output's size together


def frames_together(device: torch.device) -> int:
    """Returns how many frames of a video are best encoded in one batch on a device."""
    return ENCODED_TOGETHER.get(device.type, ENCODED_TOGETHER["cpu"])


@dataclass(frozen=True)
class DecodedClip:
    """A clip after decoding and matching.

    Attributes:
        start: index of its first frame.
        frames: its T encoded frames.
        outputs: the outputs of each decoder layer, for one video and all queries.
        queries: (N,) int64, the kept queries, on the network's device.
        ids: the N instance ids of these queries.
    """

    start: int
    frames: EncodedFrames
    outputs: list[DecoderOutput]
    queries: Tensor
    ids: list[int]


def select_candidates(
    network: SeqFormerNetwork,
    frames: EncodedFrames,
    output: DecoderOutput,
    probabilities: Tensor,
    options: InferenceOptions,
    *,
    by_motion: bool = False,
) -> tuple[Tensor, Tensor]:
    """Selects the candidate queries of one clip, best first, and computes their masks.

    Args:
        network: the network that decoded the clip.
        frames: the T encoded frames of the clip.
        output: the output of the last decoder layer.
        probabilities: (Q, K) class probabilities.
        options: number of candidates and the IoU threshold for duplicates.
        by_motion: select for matching by motion, which wants duplicates as well, and drops candidates that
            are improbable.

    Returns:
        Indices of N queries, and their mask logits (N, T, h, w), stride 4, padding included.
    """
    queries = select_queries(probabilities, options)
    if by_motion:
        queries = queries[probabilities[queries].amax(1) >= options.motion.least_probability]
    masks = network.masks(frames, output.instance_queries[0, queries], output.reference[0, :, queries])
    if options.duplicate_iou < 1 and not by_motion:
        kept = without_duplicates(probabilities[queries], masks, options.duplicate_iou, options.num_instances)
        queries, masks = queries[kept], masks[kept]
    return queries, masks


class VideoInference:
    """One pass over one video.

    Frames do not mix before the decoder, so the backbone, the encoder and the mask features run once per
    frame, even if several clips contain it. Without clip matching the video is a single clip.

    Args:
        network: the network, in eval mode.
        options: inference options.
        length: expected number of frames, if known. If ``auto_memory_gb`` chose a single clip and there are
            more frames than fit, the video is cut into clips from then on.
        observer: called with each clip right after it is decoded.
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
        self._by_clips = None if options.auto_memory_gb else options.clip_matching  # None: undecided
        self._observer = observer
        motion = options.motion if options.by_motion else None
        self._store = InstanceStore(options.clip_length, options.max_live_instances, motion)
        self._frames: list[EncodedFrames] = []
        self._first = 0  # index of the first frame in self._frames
        self._seen = 0  # number of frames so far
        self._next_start = 0  # first frame of the next clip

    def run(self, images: Iterable[Tensor]) -> Iterator[FinalFrames]:
        """Processes frames (3, h, w) of the same size, and yields them as they become final."""
        remaining = iter(images)
        while batch := list(islice(remaining, frames_together(self.network.device))):
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
                yield from self._final(clip.start + 1)  # later clips begin later
                self._next_start = clip.start + stride

    @torch.no_grad()
    def finish(self) -> Iterator[FinalFrames]:
        """Declares the end of the video, yields the remaining frames, and retires all instances."""
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
        """Returns the results of final frames. Call it before the iterator yields the next frames.

        Args:
            final: the frames, from ``push`` or ``finish``.
            image_size: height and width of the network's input, without padding.
            output_size: height and width of the masks.
        """
        masks = encode_outputs(
            final.mask_logits, image_size, output_size, final.present, original=self.options.original
        )
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
        """Returns mean class probabilities (K,) of active and not yet popped instances, by id."""
        return self._store.probabilities()

    def pop_retired(self) -> list[EndedInstance]:
        """Returns the instances that retired since the last call, in order of first appearance."""
        retired = self._store.pop_retired()
        scores: dict[int, list[tuple[int, float]]] = {i: [] for i in retired}
        for i, label, score in scored_classes(retired, self.options):
            scores[i].append((label, score))
        return [EndedInstance(i, classes) for i, classes in scores.items()]

    def state(self) -> dict[str, Any]:
        """Returns a state of bounded size that consists of tensors, numbers, lists and dicts.

        It has no frames: after ``restore``, the next frame to push is frame ``num_final``.
        """
        store = self._store.state()
        return {"next_start": self._next_start, "by_clips": self._by_clips, "store": store}

    def restore(self, state: dict[str, Any]) -> None:
        """Continues from a saved ``state``; the next frame is frame ``num_final``.

        Raises:
            KeyError, TypeError: if ``state`` is malformed.
        """
        self._next_start, self._by_clips = state["next_start"], state["by_clips"]
        self._store.restore(state["store"])
        self._frames, self._first, self._seen = [], self.num_final, self.num_final

    @property
    def num_final(self) -> int:
        """The number of final frames yielded so far."""
        return self._store.num_final

    def _decide(self) -> None:
        """Decides whether the video is one clip, from what is known about its length."""
        cost = frame_bytes(self.network, self._frames[-1], self.options.num_candidates)
        frames = None if self._length is None else max(self._length, self._seen)
        by_clips = not fits_one_clip(frames, cost, 1e9 * self.options.auto_memory_gb)
        if by_clips == self._by_clips:
            return
        self._by_clips = by_clips
        if frames is None:
            known = f"length unknown, a frame needs {cost / 1e6:.1f} MB"
        else:
            known = f"{frames} frames of {cost / 1e6:.1f} MB need {frames * cost / 1e9:.2f} GB"
        clips = f"clips of {self.options.clip_length} frames, stride {self.options.clip_stride}"
        logger.info(
            "%s, MODEL.SeqFormer.AUTO_MEMORY_GB is %g: %s",
            known,
            self.options.auto_memory_gb,
            clips if by_clips else "the whole video is one clip",
        )

    def _decode(self, clip: range) -> None:
        if self._share_values(len(clip)):
            self._frames = [self.network.with_values(part) for part in self._frames]
        frames = EncodedFrames.cat(self._frames)[clip.start - self._first :]
        self._frames, self._first = [frames], clip.start
        frames = frames[: len(clip)]
        outputs = self.network.decode(frames, len(frames))
        output = outputs[-1]
        probabilities = self.network.classify(-1, output)[0].float().sigmoid()
        chosen, masks = select_candidates(
            self.network, frames, output, probabilities, self.options, by_motion=self.options.by_motion
        )
        if self.options.merge_on_cpu:
            masks = masks.cpu()
        ids = self._add(ClipInstances(clip.start, probabilities[chosen].cpu(), masks))
        if self._observer is not None:
            rows = [row for row, i in enumerate(ids) if i is not None]
            kept = [i for i in ids if i is not None]
            self._observer(DecodedClip(clip.start, frames, outputs, chosen[rows], kept))

    def _share_values(self, length: int) -> bool:
        """Whether clips of this length overlap, and the values of one are small enough to keep."""
        layers = len(self.network.detr.transformer.decoder.layers)
        kept = length * layers * self._frames[0].memory[0].nbytes
        return bool(self._by_clips) and self.options.clip_stride < length and kept <= _KEPT_VALUES

    def _add(self, clip: ClipInstances) -> Sequence[int | None]:
        """Assigns ids to the instances of the next clip, stores the clip, and returns the ids."""
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
        """Yields final frames before ``end``, a few at a time."""
        while (frames := self._store.pop_final(end, _RESIZED_TOGETHER)) is not None:
            yield frames
