"""A toy dataset for tests and first steps: coloured shapes that move, occlude each other, leave and return.

``python -m seqformer.data.toy FOLDER`` writes train.json, val.json and frames.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from seqformer.errors import exit_on_bad_input
from seqformer.formats.rle import encode_masks
from seqformer.formats.ytvis import Dataset, Video, write_ytvis

__all__ = ["SHAPES", "make_toy_dataset"]

SHAPES = ("circle", "square", "triangle")
_COLORS = ((225, 60, 50), (60, 190, 70), (70, 90, 230))  # of the shapes, so that they are easy to learn
_NOISE = 12.0  # standard deviation of the background, grey levels


def make_toy_dataset(
    root: str | Path,
    *,
    num_train: int = 30,
    num_val: int = 4,
    length: int = 8,
    size: tuple[int, int] = (96, 128),
    instances: int = 3,
    seed: int = 0,
) -> tuple[Path, Path, Path]:
    """Writes a training and a validation set of videos in YouTube-VIS format.

    Args:
        root: output folder; created if missing.
        num_train, num_val: number of videos in each set.
        length: frames in a video.
        size: height and width in pixels.
        instances: shapes in a video.
        seed: the same seed produces the same files.

    Returns:
        train.json, val.json and the folder of frames.
    """
    root = Path(root)
    rng = np.random.default_rng(seed)
    frames_root = root / "frames"
    written = []
    for split, count in (("train", num_train), ("val", num_val)):
        dataset = Dataset(dict(enumerate(SHAPES, start=1)), {}, [])
        for video_id in range(1, count + 1):
            folder = frames_root / f"{split}_{video_id:03d}"
            folder.mkdir(parents=True, exist_ok=True)
            frames, masks, labels = _draw_video(rng, length, size, instances)
            names = [f"{folder.name}/{index:05d}.jpg" for index in range(length)]
            for name, frame in zip(names, frames, strict=True):
                Image.fromarray(frame).save(frames_root / name, quality=92)
            video = dataset.videos[video_id] = Video(video_id, names, *size)
            for label, mask in zip(labels, masks, strict=True):
                dataset.annotate(video, label + 1, encode_masks(mask))
        written.append(root / f"{split}.json")
        write_ytvis(written[-1], dataset)
    return written[0], written[1], frames_root


def _draw_video(
    rng: np.random.Generator, length: int, size: tuple[int, int], instances: int
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Returns frames (T, H, W, 3) uint8, visible masks (N, T, H, W) bool and classes, from back to front."""
    height, width = size
    y, x = np.mgrid[:height, :width] + 0.5
    background = rng.uniform(90, 150) + rng.normal(0, _NOISE, (length, height, width, 3))
    frames = background.clip(0, 255).astype(np.uint8)
    masks = np.zeros((instances, length, height, width), dtype=bool)
    labels = rng.integers(len(SHAPES), size=instances).tolist()
    for index, label in enumerate(labels):
        radius = rng.uniform(0.18, 0.28) * height
        start, end = (rng.uniform(-0.05, 1.05, 2) * (width, height) for _ in range(2))
        color = np.asarray(_COLORS[label]) + rng.integers(-20, 21, 3)
        for t, (center_x, center_y) in enumerate(np.linspace(start, end, length)):
            shape = _inside(SHAPES[label], x - center_x, y - center_y, radius)
            masks[:index, t] &= ~shape
            masks[index, t] = shape
            frames[t][shape] = color.clip(0, 255)
    return frames, masks, labels


def _inside(shape: str, dx: np.ndarray, dy: np.ndarray, radius: float) -> np.ndarray:
    if shape == "circle":
        return dx**2 + dy**2 <= radius**2
    if shape == "square":
        return np.maximum(abs(dx), abs(dy)) <= 0.85 * radius
    return (dy <= radius) & (dy >= 2 * abs(dx) - radius)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Write the toy dataset: moving shapes in YouTube-VIS format."
    )
    parser.add_argument("root", type=Path, help="folder to write to")
    parser.add_argument("--train", type=int, default=30, help="training videos (default: %(default)s)")
    parser.add_argument("--val", type=int, default=4, help="validation videos (default: %(default)s)")
    parser.add_argument("--length", type=int, default=8, help="frames in a video (default: %(default)s)")
    args = parser.parse_args()
    with exit_on_bad_input():
        paths = make_toy_dataset(args.root, num_train=args.train, num_val=args.val, length=args.length)
    print(f"wrote {', '.join(map(str, paths))}")


if __name__ == "__main__":
    main()
