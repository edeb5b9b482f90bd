"""Small random evaluations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from seqformer.formats.rle import encode_masks

Case = tuple[dict[str, Any], list[dict[str, Any]]]


@pytest.fixture(scope="session")
def random_case() -> Callable[[int], Case]:
    """Ground truth and results by seed: drifting boxes with gaps, crowds, ties, duplicates, empty masks."""

    def make(seed: int) -> Case:
        rng = np.random.default_rng(seed)
        categories = [{"id": 10 * k + 5, "name": f"class {k}"} for k in range(3)]
        videos, annotations, results = [], [], []
        for video_id in rng.permutation(5).tolist():
            height, width = (int(n) for n in rng.integers(20, 400, 2))
            length = int(rng.integers(1, 6))
            names = [f"{video_id}/{t}.jpg" for t in range(length)]
            videos.append({"id": video_id, "height": height, "width": width, "file_names": names})
            for _ in range(rng.integers(0, 5)):
                boxes = np.sort(rng.random((2, 2)), axis=0) * (height, width)
                entry = {"video_id": video_id, "category_id": 10 * int(rng.integers(3)) + 5}
                annotations.append(
                    entry
                    | {
                        "id": len(annotations) + 1,
                        "iscrowd": int(rng.random() < 0.2),
                        "segmentations": _track(rng, boxes, (length, height, width), 0.0),
                    }
                )
                for _ in range(rng.integers(0, 4)):
                    results.append(
                        entry
                        | {
                            "score": float(np.round(rng.random(), 1)),
                            "segmentations": _track(rng, boxes, (length, height, width), 0.2 * rng.random()),
                        }
                    )
            if rng.random() < 0.5:
                nothing = {"score": 0.9, "segmentations": [None] * length}
                results.append({"video_id": video_id, "category_id": 5} | nothing)
        order = rng.permutation(len(results))
        return (
            {"videos": videos, "categories": categories, "annotations": annotations},
            [results[index] for index in order],
        )

    return make


def _track(
    rng: np.random.Generator, boxes: np.ndarray, shape: tuple[int, int, int], noise: float
) -> list[dict[str, Any] | None]:
    masks = np.zeros(shape, dtype=bool)
    for mask in masks:
        if rng.random() < 0.8:
            moved = boxes + rng.normal(0, 1, (2, 2)) * noise * shape[1:]
            (top, left), (bottom, right) = moved.clip(0).astype(int)
            mask[top : bottom + 1, left : right + 1] = True
    return encode_masks(masks)
