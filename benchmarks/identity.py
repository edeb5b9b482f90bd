"""Measures what recognises an instance in a later clip: its query, its appearance or its place.

    python benchmarks/identity.py val.json val/JPEGImages

The model (by default the shipped one) is run on an annotated dataset in overlapping clips. Its instances are
assigned to the ground truth by space-time IoU. Then an instance of one clip is searched for among all
instances of a later clip of the same video, by

    query            cosine similarity of the instance queries
    query, head      the same after a small network, trained with a contrastive loss, as in IDOL and CTVIS
    inside           cosine similarity of the encoder's features of strides 8 and 16, averaged over the masks
    inside, head     the same after another such network
    distance         between the centres of the masks
    and the heads together with the distance, with a fixed weight.

Heads are trained on every second video and measured on the others.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import seqformer  # noqa: F401  before Detectron2, to hide one of its warnings

# isort: split
import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as mask_api
from scipy.optimize import linear_sum_assignment
from tabulate import tabulate
from torch import Tensor, nn
from tqdm import tqdm

from seqformer.errors import InputError, exit_on_bad_input
from seqformer.formats.rle import encode_masks, space_time_iou
from seqformer.formats.ytvis import Dataset, Video, read_ytvis
from seqformer.inference import VideoPredictor
from seqformer.inference.video import DecodedClip
from seqformer.modeling import EncodedFrames
from seqformer.structures import RLE
from seqformer.video import ImageSequenceReader

_IOU_THRESHOLD = 0.5
_GAPS = (1, 3, 5, 8, 12)  # frames from the start of a clip to the start of the later one
_WEIGHT = 3.0  # of the squared distance, in image sides, relative to a head's cosine similarity
_LEVELS = 2  # finest levels of the encoder, whose features are averaged
_WIDTH, _TEMPERATURE, _STEPS, _BATCH = 64, 0.1, 1500, 16

Clips = dict[tuple[int, int], dict[int, "Seen"]]  # instances by video and first frame, then by identity


@dataclass
class Seen:
    """A ground-truth instance that is predicted in a clip.

    Attributes:
        query: (d,), its instance query.
        inside: (2d,), the mean of the encoder's features inside its masks.
        centre: (2,), that of its masks.
    """

    query: Tensor
    inside: Tensor
    centre: Tensor


def clips_of(predictor: VideoPredictor, dataset: Dataset, images: Path) -> Clips:
    """Runs the model on all videos."""
    clips: Clips = {}
    for video in tqdm(list(dataset.videos.values()), "clips", unit=" videos", disable=None):
        truths = {
            number: a.masks
            for number, a in enumerate(dataset.annotations or ())
            if a.video.id == video.id and not a.crowd
        }

        def observe(clip: DecodedClip, video: Video = video, truths: dict = truths) -> None:
            clips[video.id, clip.start] = _recognised(predictor, clip, video, truths)

        stream = predictor.stream(clip_matching=True, observer=observe)
        for frame in ImageSequenceReader([images / name for name in video.names], keep_order=True):
            stream.push(frame)
        stream.finish()
    return clips


def _recognised(
    predictor: VideoPredictor, clip: DecodedClip, video: Video, truths: dict[int, list[RLE | None]]
) -> dict[int, Seen]:
    output, network = clip.outputs[-1], predictor.network
    frames = range(clip.start, clip.start + len(clip.frames))
    visible = {i: masks[frames.start : frames.stop] for i, masks in truths.items()}
    visible = {i: masks for i, masks in visible.items() if any(masks)}
    if not visible or not len(clip.queries):
        return {}
    queries = output.instance_queries[0, clip.queries]
    logits = network.masks(clip.frames, queries, output.reference[0, :, clip.queries])
    inside = _means_inside(clip.frames, logits)
    width, height = clip.frames.sizes[0].tolist()
    logits = F.interpolate(logits, scale_factor=4, mode="bilinear")[..., :height, :width]
    masks = F.interpolate(logits, (video.height, video.width), mode="bilinear") > 0
    predicted = [encode_masks(mask.cpu().numpy()) for mask in masks]
    overlaps = space_time_iou(predicted, list(visible.values()))
    seen = {}
    for row, column in zip(*linear_sum_assignment(-overlaps), strict=True):
        if overlaps[row, column] >= _IOU_THRESHOLD:
            boxes = mask_api.toBbox([rle for rle in predicted[row] if rle is not None])
            centre = (boxes[:, :2] + boxes[:, 2:] / 2).mean(0) / (video.width, video.height)
            seen[list(visible)[column]] = Seen(
                queries[row].cpu(), inside[row].cpu(), torch.from_numpy(centre).float()
            )
    return seen


def _means_inside(frames: EncodedFrames, logits: Tensor) -> Tensor:
    """Returns the mean features (N, 2d) inside N masks, logits (N, T, h, w), of T encoded frames."""
    means = []
    for level in frames.levels.split(frames.memory)[:_LEVELS]:  # T, d, h, w
        share = F.interpolate((logits > 0).float(), level.shape[-2:], mode="area")
        total = share.sum((1, 2, 3)).clamp(min=1e-6)
        means.append(torch.einsum("nthw,tdhw->nd", share, level) / total[:, None])
    return torch.cat(means, dim=1)


def pairs(clips: Clips, videos: set[int], gap: int) -> Iterator[tuple[dict[int, Seen], dict[int, Seen]]]:
    """Yields clips and the clips ``gap`` frames later that share an instance, of several, with them."""
    for (video, start), first in clips.items():
        second = clips.get((video, start + gap), {})
        if video in videos and len(second) > 1 and first.keys() & second.keys():
            yield first, second


def accuracy(
    clips: Clips, videos: set[int], gap: int, similarity: Callable[[Seen, Seen], float]
) -> tuple[float, int]:
    """Returns the share of instances that are most similar to themselves, and the number of instances."""
    right = [
        max(second, key=lambda other: similarity(first[i], second[other])) == i
        for first, second in pairs(clips, videos, gap)
        for i in first.keys() & second.keys()
    ]
    return float(np.mean(right)) if right else float("nan"), len(right)


def train_head(
    clips: Clips, videos: set[int], seed: int, describe: Callable[[Seen], Tensor]
) -> Callable[[Seen], Tensor]:
    """Trains a head so that an instance is nearer to itself in a later clip than to the other instances.

    Returns what describes an instance, as a vector of unit length.
    """
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    material = [pair for gap in _GAPS for pair in pairs(clips, videos, gap)]
    if not material:
        raise InputError("no instance is predicted in two clips: there is nothing to train the head on")
    dim = len(describe(next(iter(material[0][0].values()))))
    head = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, _WIDTH))
    optimizer = torch.optim.AdamW(head.parameters(), 1e-3, weight_decay=0.05)
    for _ in tqdm(range(_STEPS), "training the head", disable=None):
        losses = []
        for index in random.integers(len(material), size=_BATCH):
            first, second = material[index]
            others = list(second)
            both = [i for i in first if i in second]
            a = F.normalize(head(torch.stack([describe(first[i]) for i in both])), dim=1)
            b = F.normalize(head(torch.stack([describe(second[i]) for i in others])), dim=1)
            same = torch.tensor([others.index(i) for i in both])
            losses.append(F.cross_entropy(a @ b.T / _TEMPERATURE, same))
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        optimizer.step()
    head.eval()
    return lambda seen: F.normalize(head(describe(seen)), dim=0)


@torch.no_grad()
def measure(clips: Clips, seed: int) -> str:
    """Returns a Markdown table."""
    videos = sorted({video for video, _ in clips})
    training, test = set(videos[::2]), set(videos[1::2])
    descriptions: dict[str, Callable[[Seen], Tensor]] = {
        "query": lambda seen: F.normalize(seen.query, dim=0),
        "inside": lambda seen: F.normalize(seen.inside, dim=0),
    }
    with torch.enable_grad():
        heads = {
            f"{name}, head": train_head(clips, training, seed, describe)
            for name, describe in descriptions.items()
        }

    def distance(a: Seen, b: Seen) -> float:
        return -float((a.centre - b.centre).square().sum())

    def by(describe: Callable[[Seen], Tensor], weight: float) -> Callable[[Seen, Seen], float]:
        return lambda a, b: float(describe(a) @ describe(b)) + weight * distance(a, b)

    ways = {name: by(describe, 0.0) for name, describe in (descriptions | heads).items()}
    ways["distance"] = distance
    ways |= {f"{name}, distance": by(describe, _WEIGHT) for name, describe in heads.items()}
    rows = []
    for gap in _GAPS:
        figures = [accuracy(clips, test, gap, way) for way in ways.values()]
        rows.append([str(gap), str(figures[0][1]), *(f"{100 * share:.1f} %" for share, _ in figures)])
    return tabulate(rows, ["frames later", "instances", *ways], "pipe", disable_numparse=True)


def run(args: argparse.Namespace) -> None:
    dataset = read_ytvis(args.dataset, image_root=args.images)
    if not dataset.annotations:
        raise InputError(f"{args.dataset}: no annotations to compare with")
    predictor = VideoPredictor.from_pretrained(args.model, opts=args.opts)
    print(measure(clips_of(predictor, dataset, args.images), args.seed))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path, metavar="JSON", help="dataset in YouTube-VIS format")
    parser.add_argument("images", type=Path, metavar="FOLDER", help="folder of its frames")
    parser.add_argument("--model", metavar="MODEL", help="as of `seqformer predict`")
    parser.add_argument("--seed", type=int, default=0, help="of the head (default: %(default)s)")
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE")
    with exit_on_bad_input():
        run(parser.parse_args())
