"""YOLO segmentation: lines of polygons, data.yaml, and errors that name the line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from seqformer.errors import InputError
from seqformer.formats.labelled import read_labelled
from seqformer.formats.rle import decode_mask
from seqformer.formats.yolo import read_yolo, write_yolo

LEFT_HALF = "0 0 0 0.5 0 0.5 1 0 1"


@pytest.fixture
def labels(made: Any) -> Path:
    """A folder of labels with the classes "car" and "person", and a car in the left half of one frame."""
    root = made.root / "yolo"
    (root / "labels/a").mkdir(parents=True)
    (root / "data.yaml").write_text("train: images\nnames: [car, person]\n")
    (root / "labels/a/00001.txt").write_text(LEFT_HALF + "\n")
    return root


def test_polygons_become_instances_of_one_frame(made: Any, labels: Path) -> None:
    (labels / "labels/a/00002.txt").write_text(f"\n{LEFT_HALF}\n{LEFT_HALF.replace('0', '1', 1)}\n")
    dataset = made.checked(read_yolo(labels, made.frames))
    assert dataset.names == {1: "car", 2: "person"}
    assert [video.names[0] for video in dataset.videos.values()] == ["a/00000.jpg", "b/00000.jpg"]
    visible = [[t for t, mask in enumerate(a.masks) if mask] for a in dataset.annotations]
    assert [(a.category, frames) for a, frames in zip(dataset.annotations, visible, strict=True)] == [
        (1, [1]),
        (1, [2]),
        (2, [2]),
    ]
    expected = np.arange(40) < 20
    assert (decode_mask(dataset.annotations[0].masks[1]) == expected).all()


def test_confidences_and_track_ids(made: Any, labels: Path) -> None:
    """As `yolo track save_txt=True save_conf=True` writes them."""
    for t, score in enumerate((0.25, 0.75, 0.5)):
        (labels / f"labels/a/{t:05d}.txt").write_text(f"{LEFT_HALF} {score} 7\n")
    (annotation,) = read_yolo(labels, made.frames, confidences=True, track_ids=True).annotations
    assert (annotation.id, annotation.score) == (7, 0.5)
    assert all(annotation.masks)


def test_frames_in_one_folder(made: Any, labels: Path) -> None:
    (labels / "labels/00001.txt").write_text(LEFT_HALF)
    dataset = read_yolo(labels, made.frames / "a")
    assert [video.names for video in dataset.videos.values()] == [["00000.jpg", "00001.jpg", "00002.jpg"]]
    assert [bool(mask) for mask in dataset.annotations[0].masks] == [False, True, False]


def test_what_is_written(made: Any) -> None:
    dataset, _ = made.write()
    names, videos = read_labelled(dataset)
    write_yolo(videos, names, made.root / "out")
    assert not (made.root / "out/images").exists()
    data = yaml.safe_load((made.root / "out/data.yaml").read_text())
    assert data == {
        "train": "images",
        "val": "images",
        "names": {0: "car", 1: "person"},
        "category_ids": [1, 2],
    }
    (line,) = (made.root / "out/labels/a/00001.txt").read_text().splitlines()
    class_, *numbers = line.split()
    corners = np.reshape(np.asarray(numbers, float), (-1, 2)) * (40, 24)
    assert class_ == "0"
    np.testing.assert_allclose([corners.min(0), corners.max(0)], [[4, 2], [13, 10]], atol=1e-4)
    assert len(corners) == 4 + 4 + 2  # of the part, of its hole, and of the line that connects them


def test_two_frames_with_one_label_file(made: Any) -> None:
    dataset, _ = made.write()
    names, (first, second) = read_labelled(dataset)
    second.video.names = first.video.names[:2]
    with pytest.raises(InputError, match="two frames are called 'a/00000'"):
        write_yolo([first, second], names, made.root / "out")
    assert not (made.root / "out").exists()


def test_a_frame_that_is_missing(made: Any) -> None:
    dataset, _ = made.write()
    names, videos = read_labelled(dataset)
    (made.frames / "b/00001.jpg").unlink()
    with pytest.raises(InputError, match="no frame '.*b/00001.jpg'"):
        write_yolo(videos, names, made.root / "out", made.frames)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0 0 0.5 0 0.5 1 0", "line 1: a line must be: class, then x and y of at least three corners"),
        ("0 0 0 0.5 0", "line 1: a box is not a mask"),
        ("0 x y", "line 1: a line must be: class"),
        ("nan 0 0 1 0 1 1", "line 1: a line must be: class"),
        ("0 0 0 inf 0 1 1", "line 1: a line must be: class"),
        ("1.5 0 0 1 0 1 1", "line 1: a line must be: class"),
        ("-1 0 0 1 0 1 1", "line 1: a line must be: class"),
        ("2 0 0 1 0 1 1", "line 1: class 2, but '.*data.yaml' has 2 classes"),
        ("0 0 0 640 0 640 480", "line 1: coordinates must be from 0 to 1"),
        ("0 " + "0 0 1 1 " * 50_000, "line 1: malformed polygon: its sides have a length of"),
    ],
)
def test_malformed_lines(made: Any, labels: Path, line: str, message: str) -> None:
    (labels / "labels/b").mkdir()
    (labels / "labels/b/00000.txt").write_text(line)
    with pytest.raises(InputError, match=f"b/00000.txt, {message}"):
        read_yolo(labels, made.frames)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"{LEFT_HALF} 0.5", "corners, then the confidence, then the track id"),
        (f"{LEFT_HALF} 0.5 7.5", "the track id 7.5 is not an integer"),
    ],
)
def test_malformed_tracks(made: Any, labels: Path, line: str, message: str) -> None:
    (labels / "labels/a/00001.txt").write_text(line)
    with pytest.raises(InputError, match=message):
        read_yolo(labels, made.frames, confidences=True, track_ids=True)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "no file '.*data.yaml'"),
        ("{", "data.yaml' is not YAML: while parsing"),
        ("[" * 5000, "data.yaml' is not YAML"),
        ("a: &a [1]\nnames: [*a, *a]", "'names' must have a name for every class from 0"),
        ("nc: 2", "'names' must have a name for every class from 0"),
        ("names: {1: car}", "'names' must have a name for every class from 0"),
        ("names: []", "'names' must have a name for every class from 0"),
        ("names: [car, car]", "two categories have the same name: car, car"),
        ("names: [a, b]\ncategory_ids: [1]", "'category_ids' must have an integer for every class"),
        ("names: [a, b]\ncategory_ids: [1, 1]", "two classes have the same id"),
        ("names: !!python/object:os.system {}", "data.yaml' is not YAML: could not determine a constructor"),
    ],
)
def test_malformed_data(made: Any, labels: Path, data: str | None, message: str) -> None:
    (labels / "data.yaml").unlink()
    if data is not None:
        (labels / "data.yaml").write_text(data)
    with pytest.raises(InputError, match=message):
        read_yolo(labels, made.frames)


def test_other_files_that_cannot_be_used(made: Any, labels: Path) -> None:
    (labels / "labels/a/00001.txt").write_bytes(b"\xff\xfe0")
    with pytest.raises(InputError, match="a/00001.txt' is not text"):
        read_yolo(labels, made.frames)
    (labels / "labels").rename(labels / "other")
    with pytest.raises(InputError, match="no folder '.*labels'"):
        read_yolo(labels, made.frames)
