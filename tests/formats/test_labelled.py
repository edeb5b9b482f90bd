"""Results grouped by video: which instances are kept, which are in front, and errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from seqformer.errors import InputError
from seqformer.formats.coco import write_coco
from seqformer.formats.labelled import paint_ids, read_labelled


def edit(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_higher_scores_are_in_front_and_low_ones_are_dropped(made: Any) -> None:
    def change(results: list) -> None:
        everywhere = [{"size": [24, 40], "counts": [0, 960]}] * 3
        results.append(results[0] | {"score": 0.85, "segmentations": everywhere})
        results.append(results[1] | {"score": 0.3, "segmentations": [everywhere[0], None, None]})
        results.append(results[1] | {"score": 0.95, "segmentations": [None] * 3})

    dataset, results = made.write()
    edit(results, change)
    _, (video, _) = read_labelled(dataset, results, 0.4)
    assert [instance.score for instance in video.instances] == pytest.approx([0.9, 0.85, 0.8])
    picture = paint_ids(video, 0, [5, 6, 7])
    np.testing.assert_array_equal(picture == 5, made.masks["a"][0][0])
    assert (picture[~made.masks["a"][0][0]] == 6).all()


def test_instance_with_two_categories_is_kept_once(made: Any) -> None:
    dataset, results = made.write()
    edit(results, lambda r: r.append(r[0] | {"category_id": 2, "score": 0.95}))
    _, (video, _) = read_labelled(dataset, results)
    assert [(i.category, i.score) for i in video.instances] == [(2, 0.95), (2, pytest.approx(0.8))]


def test_coco_by_frame(made: Any) -> None:
    names, videos = read_labelled(*made.write())
    write_coco(videos, names, made.root / "frames.json")
    coco = COCO(str(made.root / "frames.json"))
    files = [image["file_name"] for image in coco.dataset["images"]]
    assert files == ["a/00000.jpg", "a/00001.jpg", "a/00002.jpg", "b/00000.jpg", "b/00001.jpg"]
    assert [a["track_id"] for a in coco.dataset["annotations"]] == [1, 1, 1, 2, 2, 3, 3, 4, 4]
    for annotation in coco.dataset["annotations"]:
        image = coco.imgs[annotation["image_id"]]
        name = "ab"[image["video_id"] - 1]
        index = (annotation["track_id"] - 1) % 2
        expected = made.masks[name][index][image["frame_id"]]
        np.testing.assert_array_equal(coco.annToMask(annotation), expected)
        assert coco.cats[annotation["category_id"]]["name"] == made.categories[name][index]
        assert annotation["area"] == expected.sum()
        assert annotation["score"] == pytest.approx(1 - 0.1 * annotation["track_id"])


def set_names(*names: str) -> Callable[[dict], None]:
    return lambda data: data["videos"][1].update(file_names=list(names))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_names("b/0.jpg", "c/0.jpg"), "video 2: all frames must be in one subfolder"),
        (set_names("../b/0.jpg", "../b/1.jpg"), "video 2: the file name '../b/0.jpg' is not in the"),
        (set_names("/b/0.jpg", "/b/1.jpg"), "video 2: the file name '/b/0.jpg' is not in the"),
        (set_names("b/..jpg", "b/1.jpg"), "video 2: the frame '..jpg' is a hidden file"),
        (set_names("b/...jpg", "b/1.jpg"), "video 2: the frame '...jpg' is a hidden file"),
        (set_names("b/\0.jpg", "b/1.jpg"), "video 2: the file name .* is not in the folder"),
        (set_names("a/0.jpg", "a/1.jpg"), "video 2: shares the folder 'a' with video 1"),
        (set_names("b/0.jpg", "b/0.png"), "video 2: two frames have the same name"),
        (lambda data: data["videos"].pop(), "results.json: video 2, result 2: there is no video 2"),
        (lambda data: data["categories"].pop(), "result 1: there is no category 2"),
        (lambda data: data["videos"][0].pop("height"), "dataset.json: video 1: 'height' must be"),
    ],
)
def test_unusable_datasets(made: Any, change: Callable[[dict], None], message: str) -> None:
    dataset, results = made.write()
    edit(dataset, change)
    with pytest.raises(InputError, match=message):
        read_labelled(dataset, results)
