"""convert_dataset.py: made videos written in each format come back as they were; bad files are named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_api

from seqformer.cli.convert_dataset import main
from seqformer.formats.check import check_dataset

IDS = {"car": 1, "person": 2}  # MOTS classes
CLASSES = ("--classes", "1=car", "2=person")


def convert(format_: str, made: Any, *arguments: object) -> dict[str, Any]:
    """The dataset that the tool makes, which must pass check_dataset.py."""
    output = made.root / "converted.json"
    main([format_, "--frames", str(made.frames), "--output", str(output), *map(str, arguments)])
    assert check_dataset(output, made.frames)[1] == []
    return json.loads(output.read_text())


def expect_error(capsys: pytest.CaptureFixture[str], format_: str, frames: Path, *arguments: object) -> str:
    """The one line that the tool ends with; nothing is written."""
    output = frames.parent / "converted.json"
    with pytest.raises(SystemExit) as done:
        main([format_, "--frames", str(frames), "--output", str(output), *map(str, arguments)])
    errors = capsys.readouterr().err
    assert done.value.code == 2
    assert errors.startswith("error: ") and errors.count("\n") == 1, errors
    assert not list(frames.parent.glob("converted.json*"))
    return errors


def assert_same(found: dict[str, list], made: Any, categories: dict[str, list[str]] | None = None) -> None:
    """The instances of the made videos, in the order of ``found_masks``."""
    assert found.keys() == made.masks.keys()
    for name, instances in found.items():
        expected = list(zip((categories or made.categories)[name], made.masks[name], strict=True))
        expected.sort(key=lambda instance: (instance[0], instance[1].tobytes()))
        assert [category for category, _ in instances] == [category for category, _ in expected]
        for (_, mask), (_, wanted) in zip(instances, expected, strict=True):
            np.testing.assert_array_equal(mask, wanted)


# DAVIS


def write_davis(made: Any, mode: str, numbers: tuple[int, int] = (3, 7)) -> Path:
    root = made.root / "Annotations"
    for name in made.masks:
        (root / name).mkdir(parents=True)
        for t in range(made.length(name)):
            picture = Image.fromarray(made.ids(name, t, numbers).astype(np.uint8))
            if mode == "P":
                picture.putpalette(list(range(256)) * 3)
            picture.convert(mode).save(root / name / f"{t:05d}.png")
    return root


@pytest.mark.parametrize("mode", ["P", "L"])
def test_davis(made: Any, found_masks: Callable, mode: str) -> None:
    dataset = convert("davis", made, "--annotations", write_davis(made, mode))
    assert [category["name"] for category in dataset["categories"]] == ["object"]
    assert_same(found_masks(dataset), made, {name: ["object"] * 2 for name in made.masks})
    first = dataset["annotations"][0]
    for mask, box, area in zip(first["segmentations"], first["bboxes"], first["areas"], strict=True):
        assert (box, area) == (mask_api.toBbox(mask).tolist(), int(mask_api.area(mask)))
    gone = next(a for a in dataset["annotations"] if None in a["segmentations"])
    assert gone["segmentations"][1] is gone["bboxes"][1] is gone["areas"][1] is None


def test_youtube_vos_categories(made: Any, found_masks: Callable) -> None:
    objects = {
        name: {
            "objects": {str(n): {"category": c} for n, c in zip((3, 7), made.categories[name], strict=True)}
        }
        for name in made.masks
    }
    meta = made.root / "meta.json"
    meta.write_text(json.dumps({"videos": objects}))
    dataset = convert("davis", made, "--annotations", write_davis(made, "P"), "--meta", meta)
    assert_same(found_masks(dataset), made)


def test_frames_without_a_png_are_left_out(made: Any) -> None:
    annotations = write_davis(made, "P")
    (annotations / "a" / "00001.png").unlink()
    dataset = convert("davis", made, "--annotations", annotations)
    assert dataset["videos"][0]["file_names"] == ["a/00000.jpg", "a/00002.jpg"]


def test_void_pixels(made: Any, found_masks: Callable) -> None:
    annotations = write_davis(made, "P", (3, 255))
    found = found_masks(convert("davis", made, "--annotations", annotations, "--void", 255))
    assert [len(instances) for instances in found.values()] == [1, 1]


def broken_davis(what: str, made: Any, annotations: Path) -> list[object]:
    png = annotations / "b" / "00001.png"
    if what == "colour":
        Image.new("RGB", (40, 24)).save(png)
    elif what == "size":
        Image.new("L", (41, 24)).save(png)
    elif what == "unreadable":
        png.write_bytes(b"no picture")
    elif what == "frame":
        (made.frames / "b" / "00001.jpg").unlink()
    elif what == "frame size":
        Image.new("RGB", (41, 24)).save(made.frames / "b" / "00001.jpg")
    elif what == "frame unreadable":
        (made.frames / "b" / "00001.jpg").write_bytes(b"no picture")
    elif what == "no PNGs":
        for path in (annotations / "b").iterdir():
            path.unlink()
    elif what == "no videos":
        for folder in annotations.iterdir():
            folder.rename(made.root / folder.name)
    else:
        meta = made.root / "meta.json"
        videos = {"b": {"objects": {"7": {"category": "car"}}}, "a": {"objects": {}}}
        meta.write_text(json.dumps({"videos": videos} if what == "category" else {"videos": {"a": 1}}))
        return ["--meta", meta]
    return []


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("colour", "b/00001.png' is in colour (mode RGB): ids must be"),
        ("size", "b/00001.png' is 41x24 pixels, its frame 40x24"),
        ("unreadable", "b/00001.png' cannot be read: cannot identify"),
        ("frame", "b/00001.png' has no frame in "),
        ("frame size", "b/00001.jpg' is 41x24 pixels, '"),
        ("frame unreadable", "b/00001.jpg' cannot be read"),
        ("no PNGs", "Annotations/b': no PNGs"),
        ("no videos", "no videos found"),
        ("category", "a/00000.png': object 3 has no category in '"),
        ("meta", "meta.json' is not YouTube-VOS's meta.json"),
    ],
)
def test_broken_davis(made: Any, capsys: pytest.CaptureFixture[str], what: str, message: str) -> None:
    annotations = write_davis(made, "P")
    more = broken_davis(what, made, annotations)
    assert message in expect_error(capsys, "davis", made.frames, "--annotations", annotations, *more)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--annotations", "/nowhere"), "'/nowhere'"), (("--meta", "/nowhere.json"), "no file '/nowhere.json'")],
)
def test_missing_files(
    made: Any, capsys: pytest.CaptureFixture[str], arguments: tuple[str, str], message: str
) -> None:
    usual = ("--annotations", write_davis(made, "P"))
    assert message in expect_error(capsys, "davis", made.frames, *usual, *arguments)


# MOTS


def number(made: Any, start: int) -> None:
    """Frames as MOTS has them: numbers from ``start``."""
    for folder in made.frames.iterdir():
        for path in sorted(folder.iterdir(), reverse=True):
            path.rename(folder / f"{int(path.stem) + start:06d}.jpg")


def object_numbers(made: Any, name: str) -> list[int]:
    return [IDS[category] * 1000 + n for n, category in enumerate(made.categories[name])]


def text_lines(made: Any, name: str, start: int) -> list[str]:
    lines = []
    for t in range(made.length(name)):
        for object_, mask in zip(object_numbers(made, name), made.masks[name], strict=True):
            if mask[t].any():
                rle = mask_api.encode(np.asfortranarray(mask[t], dtype=np.uint8))["counts"].decode()
                lines.append(f"{t + start} {object_} {object_ // 1000} 24 40 {rle}")
    ignored = mask_api.encode(np.asfortranarray(np.eye(24, 40, dtype=np.uint8)))["counts"].decode()
    return [*lines, f"{start} 10000 10 24 40 {ignored}"]


def write_text(made: Any, layout: str, start: int) -> Path:
    root = made.root / "mots"
    for name in made.masks:
        path = root / f"{name}.txt" if layout == "files" else root / name / "gt" / "gt.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(text_lines(made, name, start)) + "\n")
        if layout == "MOTSChallenge":
            images = made.frames / name / "img1"
            images.mkdir()
            for frame in (made.frames / name).glob("*.jpg"):
                frame.rename(images / frame.name)
    return root


def write_pngs(made: Any) -> Path:
    root = made.root / "instances"
    for name in made.masks:
        (root / name).mkdir(parents=True)
        for t in range(made.length(name)):
            ids = made.ids(name, t, object_numbers(made, name))
            if t == 0:
                ids[23, 30:] = 10000
            Image.fromarray(ids.astype(np.uint16)).save(root / name / f"{t:06d}.png")
    return root


@pytest.mark.parametrize("layout", ["files", "MOTSChallenge"])
def test_mots_text(made: Any, found_masks: Callable, layout: str) -> None:
    start = int(layout == "MOTSChallenge")
    number(made, start)
    dataset = convert("mots", made, "--annotations", write_text(made, layout, start), *CLASSES)
    assert dataset["categories"] == [{"id": 1, "name": "car"}, {"id": 2, "name": "person"}]
    found = found_masks(dataset)
    assert_same({folder.removesuffix("/img1"): instances for folder, instances in found.items()}, made)


def test_mots_pngs(made: Any, found_masks: Callable) -> None:
    number(made, 0)
    dataset = convert("mots", made, "--annotations", write_pngs(made), *CLASSES)
    assert_same(found_masks(dataset), made)


@pytest.mark.parametrize("form", ["text", "PNGs"])
def test_regions_to_be_ignored(made: Any, found_masks: Callable, form: str) -> None:
    number(made, 0)
    annotations = write_text(made, "files", 0) if form == "text" else write_pngs(made)
    kept = convert("mots", made, "--annotations", annotations, *CLASSES)
    crowds = [a for a in kept["annotations"] if a["iscrowd"]]
    assert [(a["video_id"], a["category_id"]) for a in crowds] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert {a["areas"][0] for a in crowds} == {24 if form == "text" else 10}
    assert all(set(a["areas"][1:]) == {None} for a in crowds)
    dropped = convert("mots", made, "--annotations", annotations, *CLASSES, "--ignore-regions", "drop")
    assert not any(a["iscrowd"] for a in dropped["annotations"])
    assert_same(found_masks(dropped), made)


def test_class_ids_stay(made: Any) -> None:
    number(made, 0)
    root = made.root / "mots"
    root.mkdir()
    (root / "a.txt").write_text("\n".join(ln for ln in text_lines(made, "a", 0) if ln.split()[2] == "2"))
    dataset = convert("mots", made, "--annotations", root, "--classes", "2=pedestrian")
    assert dataset["categories"] == [{"id": 2, "name": "pedestrian"}]
    assert [a["category_id"] for a in dataset["annotations"]] == [2]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 1000 1 24 40", "line 1: a line must be: frame, object, class, height, width, RLE"),
        ("0 x 1 24 40 0", "line 1: a line must be"),
        ("9 1000 1 24 40 P^1", "line 1: there is no frame 9"),
        ("0 3000 3 24 40 P^1", "line 1: object 3000 is of class 3; known are 1 (car), 2 (person)"),
        (
            "0 1000 1 23 40 hl0",
            "line 1: frame 0, object 1000: the mask's size is [23, 40], the frame's [24, 40]",
        ),
        ("0 1000 1 24 40 11", "line 1: frame 0, object 1000: malformed RLE: the runs cover 2 pixels"),
        ("0 1000 1 24 40 0Pn0\n0 1000 1 24 40 0Pn0", "line 2: frame 0, object 1000: 1000 appears twice"),
        ("0 1000 1 24 40 0Pn0\n1 1000 2 24 40 0Pn0", "line 2: frame 1, object 1000: 1000 is 'person' here"),
        ("\xe4", "is not MOTS text"),
    ],
)
def test_broken_mots_text(made: Any, capsys: pytest.CaptureFixture[str], line: str, message: str) -> None:
    number(made, 0)
    annotations = write_text(made, "files", 0)
    (annotations / "b.txt").write_text(line, encoding="utf-8")
    error = expect_error(capsys, "mots", made.frames, "--annotations", annotations, *CLASSES)
    assert f"{annotations / 'b.txt'}" in error and message in error


def test_broken_mots_pngs(made: Any, capsys: pytest.CaptureFixture[str]) -> None:
    number(made, 0)
    annotations = write_pngs(made)
    Image.fromarray(np.full((24, 40), 3001, dtype=np.uint16)).save(annotations / "b" / "000000.png")
    usual = ("--annotations", annotations, *CLASSES)
    assert "b/000000.png': object 3001 is of class 3" in expect_error(capsys, "mots", made.frames, *usual)
    Image.fromarray(np.zeros((20, 40), dtype=np.uint16)).save(annotations / "b" / "000000.png")
    assert "b/000000.png' is 40x20 pixels" in expect_error(capsys, "mots", made.frames, *usual)
    (annotations / "b" / "000000.png").rename(annotations / "b" / "000009.png")
    assert "b/000009.png' has no frame" in expect_error(capsys, "mots", made.frames, *usual)
    (annotations / "b" / "000009.png").rename(annotations / "b" / "last.png")
    assert "its name must be the number" in expect_error(capsys, "mots", made.frames, *usual)
    assert "no NAME.txt" in expect_error(capsys, "mots", made.frames, "--annotations", made.frames / "b")


# Frames alone


def test_frames_without_annotations(made: Any) -> None:
    dataset = convert("frames", made, "--categories", "person", "car")
    assert [video["file_names"][0] for video in dataset["videos"]] == ["a/00000.jpg", "b/00000.jpg"]
    assert dataset["categories"] == [{"id": 1, "name": "person"}, {"id": 2, "name": "car"}]
    assert "annotations" not in dataset
