"""A small dataset of videos with known masks, on disk and as arrays, for round trips through formats."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seqformer.formats.rle import decode_mask, encode_masks, to_rle

HEIGHT, WIDTH = 24, 40


@dataclass
class MadeVideos:
    """Two videos of disjoint blobs.

    Attributes:
        root: frames lie in root/frames/NAME/00000.jpg and so on.
        masks: by video: (T, HEIGHT, WIDTH) bool of every object.
        categories: by video: the category of every object, "car" or "person".
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

    def dataset(self) -> dict[str, Any]:
        """The videos in YouTube-VIS format."""
        videos, annotations = [], []
        for video_id, (name, objects) in enumerate(self.masks.items(), start=1):
            names = [f"{name}/{t:05d}.jpg" for t in range(self.length(name))]
            videos.append({"id": video_id, "height": HEIGHT, "width": WIDTH, "file_names": names})
            for mask, category in zip(objects, self.categories[name], strict=True):
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "video_id": video_id,
                        "category_id": 1 + (category == "person"),
                        "iscrowd": 0,
                        "segmentations": encode_masks(mask),
                    }
                )
        categories = [{"id": 1, "name": "car"}, {"id": 2, "name": "person"}]
        return {"videos": videos, "categories": categories, "annotations": annotations}

    def results(self) -> list[dict[str, Any]]:
        """A results.json that finds everything, each object with its own score."""
        return [
            {key: a[key] for key in ("video_id", "category_id", "segmentations")} | {"score": 0.9 - 0.1 * n}
            for n, a in enumerate(self.dataset()["annotations"])
        ]

    def write(self) -> tuple[Path, Path]:
        """dataset.json and results.json."""
        paths = self.root / "dataset.json", self.root / "results.json"
        for path, content in zip(paths, (self.dataset(), self.results()), strict=True):
            path.write_text(json.dumps(content))
        return paths


@pytest.fixture
def made(tmp_path: Path) -> MadeVideos:
    """Video "a" of 3 frames and "b" of 2, with 2 objects each; the second of "a" is gone in the middle."""
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


@pytest.fixture
def found_masks() -> Callable[[dict[str, Any]], dict[str, list[tuple[str, np.ndarray]]]]:
    """Category and (T, H, W) of every instance of a dataset by the folder of the video, in a fixed order."""

    def decode(dataset: dict[str, Any]) -> dict[str, list[tuple[str, np.ndarray]]]:
        names = {category["id"]: category["name"] for category in dataset["categories"]}
        found = {}
        for video in dataset["videos"]:
            size = video["height"], video["width"]
            instances = []
            for annotation in dataset["annotations"]:
                if annotation["video_id"] == video["id"] and not annotation["iscrowd"]:
                    rles = [to_rle(mask, *size) for mask in annotation["segmentations"]]
                    masks = [np.zeros(size, bool) if r is None else decode_mask(r).astype(bool) for r in rles]
                    instances.append((names[annotation["category_id"]], np.stack(masks)))
            instances.sort(key=lambda instance: (instance[0], instance[1].tobytes()))
            found[str(Path(video["file_names"][0]).parent)] = instances
        return found

    return decode
