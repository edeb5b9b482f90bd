"""What the decoder looked at in the clips that a tracker decodes, frame by frame and by the tracker's ids."""

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
    """How much each frame of one clip counts for one instance.

    Attributes:
        start: the clip's first frame.
        weights: (D, T) float32, sum to 1 over the clip's T frames.
    """

    start: int
    weights: np.ndarray


@dataclass(frozen=True)
class InstanceTrace:
    """What the decoder did for one instance in one frame, in one clip; D decoder layers, P points kept.

    Coordinates are x before y, normalised to the unpadded frame.

    Attributes:
        clip: that the frame was decoded in.
        points: (D, P, 3) float32, sampling locations and attention weights, the heaviest first.
        kept: (D,) float32, the share of attention that these points have.
        reference_point: (2,) float32, where layer 1 starts.
        boxes: (D, 4) float32, cxcywh, refined by each layer. Layer l + 1 starts from those of layer l.
    """

    clip: TemporalWeights
    points: np.ndarray
    kept: np.ndarray
    reference_point: np.ndarray
    boxes: np.ndarray


class ClipTracer:
    """Traces the clips of one video while it is tracked.

    A frame is in several clips. Of these the one whose middle is nearest is kept for each instance, and of
    that the heaviest sampling points. So memory grows with frames times instances alone, and not with
    queries or clips. Hooks are on the network within the ``with`` block only.

    Args:
        network: in eval mode.
        points: that are kept of each instance, frame and layer.

    Attributes:
        frames: by frame and instance.
        num_points: sampling points that there are of an instance, frame and layer; None before any clip.

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
        self._shares: list[dict[int, tuple[np.ndarray, int]]] = []  # sum over clips, how many
        self._hooks = ExitStack()
        self._sampled: list[SampledPoints] = []

    def __enter__(self) -> ClipTracer:
        layers = self._network.detr.transformer.decoder.layers
        self._sampled = self._hooks.enter_context(record_sampling(layers))
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()

    def shares(self, frame: int) -> dict[int, np.ndarray]:
        """How much a frame counts for its instances, by layer: (D,) float32, 1 is as much as any other.

        It is the mean, over all clips that hold instance and frame, of temporal weight times clip length.
        """
        return {i: total / count for i, (total, count) in self._shares[frame].items()}

    @torch.no_grad()
    def __call__(self, clip: DecodedClip) -> None:
        """Takes in the next clip, right after it was decoded."""
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
                    # Copies, for a view would keep the whole clip.
                    self.frames[frame][i] = InstanceTrace(temporal, *(array.copy() for array in arrays))
