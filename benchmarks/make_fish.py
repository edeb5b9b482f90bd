"""Makes a dataset of eight fish, small and crossing in front of a fixed camera, from videos of idtrackerai.

    pip download --no-deps idtrackerai==6.0.14 && unzip idtrackerai-*.whl 'idtrackerai/data/*'
    python benchmarks/make_fish.py idtrackerai/data --output datasets/fish

The videos (GPL-3.0-or-later) are real; nobody annotated them. Fish are darker than the background, the median
of the video. Each follows its mask of the frame before, moved on by its last step. Where fish touch, each
pixel goes to the nearest of these. Clips in which a fish cannot be followed are left out; in the others, the
closest encounters were looked at, and ids and masks were right. Writes train.json (test_A.avi), val.json
(test_B.avi) and frames.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from scipy.optimize import linear_sum_assignment

from seqformer.errors import exit_on_bad_input
from seqformer.formats.rle import encode_masks
from seqformer.formats.ytvis import Dataset, Video, write_ytvis
from seqformer.video import VideoReader

FISH = 8
LENGTH, STEP = 20, 2  # frames of a clip, and of the video between two of them
DARKER, HEAD_DARKER = 20, 55  # grey levels, than the background: a fish, and its darkest part
SMALLEST = 150  # pixels of a fish
FARTHEST = 25  # mean distance in pixels of a fish from where it is expected
FASTEST = 20  # pixels per frame


def blobs(darkness: np.ndarray) -> list[np.ndarray]:
    """Returns the masks (H, W) of fish, or of several that touch."""
    darkness = cv2.GaussianBlur(darkness, (3, 3), 0)
    dark = cv2.morphologyEx((darkness > DARKER).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3)))
    count, labels, figures, _ = cv2.connectedComponentsWithStats(dark)
    masks = [labels == n for n in range(1, count) if figures[n, cv2.CC_STAT_AREA] > SMALLEST]
    return [mask for mask in masks if darkness[mask].max() > HEAD_DARKER]


def distances(mask: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Returns each pixel's distance from a mask that is moved by ``step`` (x, y)."""
    shift = np.array([[1, 0, step[0]], [0, 1, step[1]]], dtype=np.float32)
    moved = cv2.warpAffine(mask.astype(np.uint8), shift, mask.shape[::-1])
    return cv2.distanceTransform((moved == 0).astype(np.uint8), cv2.DIST_L2, 3)


def next_masks(found: list[np.ndarray], expected: list[np.ndarray]) -> list[np.ndarray] | None:
    """Returns the fish of a frame, in the order of ``expected``, their distances; None if one is lost."""
    if not found:
        return None
    cost = np.array([[distance[mask].mean() for mask in found] for distance in expected])
    owner = linear_sum_assignment(cost)[1] if len(found) >= FISH else cost.argmin(axis=1)
    if cost[np.arange(FISH), owner].max() > FARTHEST:
        return None
    nearest = np.stack(expected)
    masks = []
    for fish in range(FISH):
        together = np.flatnonzero(owner == owner[fish])
        masks.append(found[owner[fish]] & (together[nearest[together].argmin(axis=0)] == fish))
    return masks if min(mask.sum() for mask in masks) >= SMALLEST / 2 else None


def center(mask: np.ndarray) -> np.ndarray:
    y, x = mask.nonzero()
    return np.array([x.mean(), y.mean()])


def follow(frames: np.ndarray) -> list[list[np.ndarray] | None]:
    """Returns the masks of the fish in every frame; ids hold until a frame without."""
    background = np.median(frames[::5], axis=0).astype(np.float32)
    followed: list[list[np.ndarray] | None] = []
    steps = [np.zeros(2)] * FISH
    for frame in frames:
        found, before = blobs(background - frame), followed[-1] if followed else None
        if before is None:
            masks = found if len(found) == FISH else None
            steps = [np.zeros(2)] * FISH
        else:
            masks = next_masks(found, [distances(*pair) for pair in zip(before, steps, strict=True)])
            pairs = zip(masks or [], before, strict=False)
            steps = [np.clip(center(new) - center(old), -FASTEST, FASTEST) for new, old in pairs]
        followed.append(masks)
    return followed


def make(video: Path, split: str, output: Path) -> None:
    with VideoReader(video) as reader:
        frames = np.stack([frame[..., 0] for frame in reader])
    followed, dataset, start = follow(frames), Dataset({1: "fish"}, {}, []), 0
    while start + LENGTH * STEP <= len(frames):
        clip = followed[start : start + LENGTH * STEP]
        lost = [t for t, masks in enumerate(clip) if masks is None]
        if lost:
            start += lost[-1] + 1
            continue
        id_ = len(dataset.videos) + 1
        names = [f"{split}_{id_:02d}/{t:05d}.jpg" for t in range(LENGTH)]
        (output / "frames" / names[0]).parent.mkdir(parents=True, exist_ok=True)
        for t, name in enumerate(names):
            Image.fromarray(frames[start + t * STEP]).save(output / "frames" / name, quality=92)
        dataset.videos[id_] = Video(id_, names, *frames.shape[1:])
        for fish in range(FISH):
            dataset.annotate(dataset.videos[id_], 1, encode_masks(np.stack([m[fish] for m in clip[::STEP]])))
        start += LENGTH * STEP
    write_ytvis(output / f"{split}.json", dataset)
    print(f"{output / split}.json: {len(dataset.videos)} videos of {LENGTH} frames with {FISH} fish")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("videos", type=Path, help="folder with test_A.avi and test_B.avi")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    arguments = parser.parse_args()
    with exit_on_bad_input():
        make(arguments.videos / "test_A.avi", "train", arguments.output)
        make(arguments.videos / "test_B.avi", "val", arguments.output)
