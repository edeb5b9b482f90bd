"""A small dataset with known masks, on disk and as arrays, for round trips through formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seqformer.formats.check import check_dataset
from seqformer.formats.results import write_results
from seqformer.formats.rle import decode_mask, encode_masks
from seqformer.formats.ytvis import Dataset, Video, read_ytvis, write_ytvis

HEIGHT, WIDTH = 24, 40


@dataclass
class MadeVideos:
    """Two videos of disjoint blobs.

    Attributes:
        root: frames are in root/frames/NAME/00000.jpg and so on.
        masks: (T, HEIGHT, WIDTH) bool of every object, by video.
        categories: the category of every object, "car" or "person", by video.
    """

    root: Path
    masks: dict[str, list[np.ndarray]] = field(default_factory=dict)
    categories: dict[str, list[str]] = field(default_factory=dict)

    @property
    def frames(self) -> Path:
        return self.root / "frames"

    def length(self, name: str) -> int:
        return len(self.masks[name][0])

    def ids(self, name: str, frame: int, numbers: Sequence[int]) -> np.ndarray:
        """The picture of ids (HEIGHT, WIDTH) of a frame."""
        picture = np.zeros((HEIGHT, WIDTH), dtype=np.int64)
        for number, mask in zip(numbers, self.masks[name], strict=True):
            picture[mask[frame]] = number
        return picture

    def dataset(self) -> Dataset:
        dataset = Dataset({1: "car", 2: "person"}, {}, [])
        for id_, (name, objects) in enumerate(self.masks.items(), start=1):
            names = [f"{name}/{t:05d}.jpg" for t in range(self.length(name))]
            video = dataset.videos[id_] = Video(id_, names, HEIGHT, WIDTH)
            for mask, category in zip(objects, self.categories[name], strict=True):
                dataset.annotate(video, 1 + (category == "person"), encode_masks(mask))
        return dataset

    def write(self) -> tuple[Path, Path]:
        """Writes dataset.json, and a results.json that has every object with its own score."""
        paths, dataset = (self.root / "dataset.json", self.root / "results.json"), self.dataset()
        write_ytvis(paths[0], dataset)
        places = [(a.video.id, a.category, a.masks) for a in dataset.annotations]
        keys = ("video_id", "category_id", "segmentations", "score")
        write_results(
            paths[1], (dict(zip(keys, (*p, 0.9 - 0.1 * n), strict=True)) for n, p in enumerate(places))
        )
        return paths

    def checked(self, dataset: Dataset) -> Dataset:
        """Writes a dataset, checks that it has no problems, and returns it as read back."""
        path = self.root / "converted.json"
        write_ytvis(path, dataset)
        assert check_dataset(path, self.frames)[1] == []
        return read_ytvis(path)

    def assert_same(self, dataset: Dataset, categories: dict[str, list[str]] | None = None) -> None:
        """Asserts that a dataset has these videos and instances, in any order."""
        found: dict[str, list[tuple[str, bytes]]] = {
            str(Path(video.names[0]).parent).removesuffix("/img1"): [] for video in dataset.videos.values()
        }
        for annotation in dataset.annotations:
            if not annotation.crowd:
                empty = np.zeros((HEIGHT, WIDTH), np.uint8)
                masks = np.stack([empty if mask is None else decode_mask(mask) for mask in annotation.masks])
                folder = str(Path(annotation.video.names[0]).parent).removesuffix("/img1")
                found[folder].append((dataset.names[annotation.category], masks.tobytes()))
        expected = {
            name: [
                (category, mask.tobytes())
                for category, mask in zip((categories or self.categories)[name], masks, strict=True)
            ]
            for name, masks in self.masks.items()
        }
        assert {name: sorted(instances) for name, instances in found.items()} == {
            name: sorted(instances) for name, instances in expected.items()
        }


@pytest.fixture
def made(tmp_path: Path) -> MadeVideos:
    """Video "a" of 3 frames and "b" of 2, with 2 objects each; in "a" the second is hidden in the middle."""
    videos = MadeVideos(tmp_path / "made")
    for name, length in (("a", 3), ("b", 2)):
        folder = videos.frames / name
        folder.mkdir(parents=True)
        objects = np.zeros((2, length, HEIGHT, WIDTH), dtype=bool)
        for t in range(length):
            Image.new("RGB", (WIDTH, HEIGHT), (9 * t, 50, 90)).save(folder / f"{t:05d}.jpg")
            objects[0, t, 2 : 9 + t, 3 + t : 12 + t] = True
            objects[0, t, 4, 5 + t] = False  # a hole
            objects[1, t, 12:20, 20 - 3 * t : 33 - 3 * t] = True
        videos.masks[name] = list(objects)
        videos.categories[name] = ["car", "person"] if name == "a" else ["person", "car"]
    videos.masks["a"][1][1] = False
    return videos
