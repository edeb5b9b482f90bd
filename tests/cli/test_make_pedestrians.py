"""The pedestrian dataset tool on a small synthetic street: labels, splits, and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_codec

from seqformer.cli.make_pedestrians import main

SIZE = (192, 256)
SPLIT, FRAMES = 60, 100
ARGUMENTS = ("--split-frame", str(SPLIT), "--train-videos", "3", "--val-videos", "2", "--frames", "6")
ARGUMENTS += ("--size", "96x128", "--processes", "1")


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A textured street where red figures walk before the split frame, and blue ones after it."""
    path = tmp_path_factory.mktemp("street") / "street.mp4"
    rng = np.random.default_rng(0)
    ground = cv2.GaussianBlur(rng.integers(90, 170, (*SIZE, 1), np.uint8), (0, 0), 2)
    ground = cv2.cvtColor(ground, cv2.COLOR_GRAY2BGR)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width = SIZE
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "12"}
        for t in range(FRAMES):
            frame = ground.copy()
            colour = (20, 20, 200) if t < SPLIT else (200, 20, 20)
            for start, speed, foot in ((20, 3, 80), (240, -4, 120), (-40, 4, 165)):
                x, height = start + speed * (t % SPLIT), round(foot * 0.3)
                cv2.ellipse(frame, (x, foot - height // 2), (height // 6, height // 2), 0, 0, 360, colour, -1)
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="bgr24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


@pytest.fixture(scope="module")
def dataset(street: Path) -> Path:
    """The dataset that the tool builds from the street."""
    output = street.parent / "dataset"
    main(["--video", str(street), "--output", str(output), *ARGUMENTS])
    return output


def visible(root: Path, split: str):
    """Yields each frame (BGR) of a split with its masks and boxes."""
    data = json.loads((root / f"{split}.json").read_text())
    for video in data["videos"]:
        own = [a for a in data["annotations"] if a["video_id"] == video["id"]]
        for t, name in enumerate(video["file_names"]):
            picture = cv2.imread(str(root / split / "JPEGImages" / name))
            seen = [(mask_codec.decode(a["segmentations"][t]), a, t) for a in own if a["segmentations"][t]]
            yield video, picture, seen


@pytest.mark.parametrize("split, videos", [("train", 3), ("val", 2)])
def test_json(dataset: Path, split: str, videos: int) -> None:
    data = json.loads((dataset / f"{split}.json").read_text())
    assert [c["name"] for c in data["categories"]] == ["person"]
    assert [v["id"] for v in data["videos"]] == list(range(1, videos + 1))
    assert [a["id"] for a in data["annotations"]] == list(range(1, len(data["annotations"]) + 1))
    assert len(data["annotations"]) >= videos
    for annotation in data["annotations"]:
        assert annotation["category_id"] == 1 and annotation["iscrowd"] == 0
        lists = [annotation[key] for key in ("segmentations", "bboxes", "areas")]
        assert {len(values) for values in lists} == {annotation["length"]} == {6}
        assert all(len({value is None for value in frame}) == 1 for frame in zip(*lists, strict=True))
        assert any(annotation["segmentations"])


@pytest.mark.parametrize("split", ["train", "val"])
def test_masks_are_disjoint_and_boxes_tight(dataset: Path, split: str) -> None:
    for video, picture, seen in visible(dataset, split):
        assert picture.shape == (video["height"], video["width"], 3) == (96, 128, 3)
        if seen:
            assert np.sum([mask for mask, _, _ in seen], axis=0).max() == 1
        for mask, annotation, t in seen:
            ys, xs = np.nonzero(mask)
            box = [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
            assert annotation["bboxes"][t] == box
            assert annotation["areas"][t] == mask.sum() >= 12


@pytest.mark.parametrize("split, own, foreign", [("train", 2, 0), ("val", 0, 2)])
def test_splits_share_nobody(dataset: Path, split: str, own: int, foreign: int) -> None:
    """Red figures are only in training, blue ones only in validation, and masks cover the colour."""
    inside = []
    for _, picture, seen in visible(dataset, split):
        picture = picture.astype(int)
        assert np.mean(picture[..., foreign] - picture[..., own] > 70) < 0.001
        for mask, _, _ in seen:
            pixels = picture[mask.astype(bool)]
            inside.append(np.mean(pixels[:, own] - pixels[:, foreign] > 50))
    assert np.mean(inside) > 0.85


@pytest.mark.parametrize("split", ["train", "val"])
def test_everybody_is_labelled(dataset: Path, split: str) -> None:
    """There is hardly any strong colour outside masks, so every visible figure has a mask."""
    unlabelled, labelled = 0, 0
    for _, picture, seen in visible(dataset, split):
        coloured = np.ptp(picture.astype(int), axis=-1) > 90
        covered = np.any([mask for mask, _, _ in seen], axis=0) if seen else np.zeros_like(coloured)
        near = cv2.dilate(covered.astype(np.uint8), np.ones((3, 3))).astype(bool)
        unlabelled += int((coloured & ~near).sum())
        labelled += int((coloured & covered).sum())
    assert labelled > 200
    assert unlabelled < 0.02 * labelled


def test_same_seed_same_dataset(street: Path, dataset: Path, tmp_path: Path) -> None:
    again, other = tmp_path / "again", tmp_path / "other"
    main(["--video", str(street), "--output", str(again), *ARGUMENTS, "--processes", "2"])
    main(["--video", str(street), "--output", str(other), *ARGUMENTS, "--seed", "1"])
    files = sorted(path.relative_to(dataset) for path in dataset.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert all((dataset / name).read_bytes() == (again / name).read_bytes() for name in files)
    assert (dataset / "train.json").read_bytes() != (other / "train.json").read_bytes()


@pytest.mark.parametrize(
    "change, message",
    [
        (("--video", "missing.avi"), "no video file"),
        (("--video", __file__), "is it a video"),
        (("--split-frame", "95"), "--split-frame 95"),
        (("--output", "."), "exists"),
    ],
)
def test_bad_input(
    street: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], message: str
) -> None:
    output = tmp_path / "output"
    with pytest.raises(SystemExit) as exit_:
        main(["--video", str(street), "--output", str(output), *ARGUMENTS, *change])
    lines = capsys.readouterr().err.strip().splitlines()
    assert exit_.value.code == 2
    assert [line for line in lines if line.startswith("error: ")] and message in lines[-1]
    assert not list(tmp_path.iterdir())
