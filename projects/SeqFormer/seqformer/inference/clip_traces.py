"""Traces of the decoder during tracking, by frame and instance id."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch

from seqformer.inference.tracing import SampledPoints, record_sampling
from seqformer.inference.video import DecodedClip
from seqformer.modeling.network import SeqFormerNetwork

__all__ = ["ClipTracer", "InstanceTrace", "TemporalWeights"]


@dataclass(frozen=True)
class TemporalWeights:
    """The weight of each frame of a clip for one instance.

    Attributes:
        start: the clip's first frame.
        weights: (D, T) float32, sum to 1 over the clip's T frames.
    """

    start: int
    weights: np.ndarray


@dataclass(frozen=True)
class InstanceTrace:
    """What the decoder did for one instance in one frame of one clip. D decoder layers, P points.

    Coordinates are xy, normalised to the unpadded frame.

    Attributes:
        clip: the temporal weights of the clip that the frame was decoded in.
        points: (D, P, 3) float32, xy of sampling locations and attention weights, highest weights first.
        kept: (D,) float32, the sum of these attention weights.
        reference_point: (2,) float32, the reference point of layer 1.
        boxes: (D, 4) float32, cxcywh, refined by each layer. Layer l + 1 starts from the box of layer l.
    """

    clip: TemporalWeights
    points: np.ndarray
    kept: np.ndarray
    reference_point: np.ndarray
    boxes: np.ndarray


class ClipTracer:
    """Records traces of the clips of one video during tracking.

    A frame is in several clips. For each instance, the trace from the clip whose middle is nearest is kept,
    with the sampling points of highest weight. So memory use grows with frames times instances, and not with
    queries or clips. The network has hooks within the ``with`` block only.

    Args:
        network: the network, in eval mode.
        points: number of sampling points to keep per instance, frame and layer.

    Attributes:
        frames: traces by frame and instance id.
        num_points: number of sampling points per instance, frame and layer; None before the first clip.

    Examples:
        >>> with ClipTracer(predictor.network) as tracer:
        ...     result = predictor(frames, observer=tracer)
        >>> tracer.frames[12][result.tracklets[0].instance_id].boxes[-1]
    """

    def __init__(self, network: SeqFormerNetwork, points: int = 48):
        self.frames: list[dict[int, InstanceTrace]] = []
        self.num_points: int | None = None
        self._network = network
        self._points = points
        self._distances: list[dict[int, int]] = []  # from the clip's middle, in half frames
        self._shares: list[dict[int, tuple[np.ndarray, int]]] = []  # sum over clips, number of clips
        self._hooks = ExitStack()
        self._sampled: list[SampledPoints] = []

    def __enter__(self) -> ClipTracer:
        layers = self._network.detr.transformer.decoder.layers
        self._sampled = self._hooks.enter_context(record_sampling(layers))
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()

    def shares(self, frame: int) -> dict[int, np.ndarray]:
        """Returns the weight of a frame for each of its instances, by layer: (D,) float32.

        This is temporal weight times clip length, averaged over the clips that contain instance and frame. 1
        means that all frames have the same weight.
        """
        return {i: total / count for i, (total, count) in self._shares[frame].items()}

    @torch.no_grad()
    def __call__(self, clip: DecodedClip) -> None:
        """Adds the next clip, right after it was decoded."""
        sampled, self._sampled[:] = list(self._sampled), []
        queries = clip.queries
        ratios = clip.frames.valid_ratios[:, None, None, :, None]  # T, 1, 1, L, 1, 2
        points, kept = [], []
        for layer in sampled:
            locations = (layer.locations[:, queries] / ratios).flatten(2, 4).float()
            weights = layer.weights[:, queries].flatten(2).float()
            self.num_points = weights.shape[-1]
            heaviest, order = weights.topk(min(self._points, self.num_points))
            xy = locations.gather(2, order.unsqueeze(-1).expand(-1, -1, -1, 2))
            points.append(torch.cat((xy, heaviest.unsqueeze(-1)), dim=-1))
            kept.append(heaviest.sum(-1) / weights.sum(-1))
        outputs = clip.outputs
        self._keep(
            clip,
            points=torch.stack(points, dim=2).cpu().numpy(),  # T, N, D, P, 3
            kept=torch.stack(kept, dim=2).cpu().numpy(),
            reference_points=outputs[0].reference[0, :, queries].float().cpu().numpy(),
            boxes=torch.stack([o.boxes[0, :, queries] for o in outputs], dim=2).float().cpu().numpy(),
            weights=torch.stack([o.temporal_weights[0, :, queries] for o in outputs]).float().cpu().numpy(),
        )

    def _keep(
        self,
        clip: DecodedClip,
        *,
        points: np.ndarray,
        kept: np.ndarray,
        reference_points: np.ndarray,
        boxes: np.ndarray,
        weights: np.ndarray,
    ) -> None:
        length = len(points)
        for _ in range(len(self.frames), clip.start + length):
            self.frames.append({})
            self._distances.append({})
            self._shares.append({})
        for n, i in enumerate(clip.ids):
            temporal = TemporalWeights(clip.start, weights[:, :, n].copy())
            for t in range(length):
                frame = clip.start + t
                total, count = self._shares[frame].get(i, (0.0, 0))
                self._shares[frame][i] = (total + temporal.weights[:, t] * length, count + 1)
                distance = abs(2 * t - (length - 1))
                if distance < self._distances[frame].get(i, 2 * length):
                    self._distances[frame][i] = distance
                    arrays = points[t, n], kept[t, n], reference_points[t, n], boxes[t, n]
                    # Copied, because a view would keep the arrays of the whole clip in memory.
                    self.frames[frame][i] = InstanceTrace(temporal, *(array.copy() for array in arrays))
