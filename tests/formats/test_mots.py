"""MOTS: round trips of datasets and results, and errors that name the line or picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_api

from seqformer.errors import InputError
from seqformer.formats.labelled import LabelledVideo, read_labelled
from seqformer.formats.mots import read_mots, write_mots
from seqformer.formats.ytvis import write_ytvis

CLASSES = {1: "car", 2: "person"}
IDS = {name: id_ for id_, name in CLASSES.items()}


def number(made: Any, start: int) -> None:
    """Renames the frames to MOTS's numbers, from ``start``."""
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
def test_text(made: Any, layout: str) -> None:
    start = int(layout == "MOTSChallenge")
    number(made, start)
    dataset = read_mots(write_text(made, layout, start), made.frames, CLASSES)
    assert dataset.names == CLASSES
    made.assert_same(made.checked(dataset))


def test_pngs(made: Any) -> None:
    number(made, 0)
    made.assert_same(made.checked(read_mots(write_pngs(made), made.frames, CLASSES)))


@pytest.mark.parametrize("form", ["text", "PNGs"])
def test_ignored_regions(made: Any, form: str) -> None:
    number(made, 0)
    annotations = write_text(made, "files", 0) if form == "text" else write_pngs(made)
    kept = made.checked(read_mots(annotations, made.frames, CLASSES))
    crowds = [a for a in kept.annotations if a.crowd]
    assert [(a.video.id, a.category) for a in crowds] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert {a.areas[0] for a in crowds} == {24 if form == "text" else 10}
    assert all(set(a.areas[1:]) == {0} for a in crowds)
    dropped = read_mots(annotations, made.frames, CLASSES, keep_ignored=False)
    assert not any(a.crowd for a in dropped.annotations)
    made.assert_same(made.checked(dropped))


def test_class_ids_are_kept(made: Any) -> None:
    number(made, 0)
    root = made.root / "mots"
    root.mkdir()
    (root / "a.txt").write_text("\n".join(ln for ln in text_lines(made, "a", 0) if ln.split()[2] == "2"))
    dataset = made.checked(read_mots(root, made.frames, {2: "pedestrian"}))
    assert dataset.names == {2: "pedestrian"}
    assert [a.category for a in dataset.annotations] == [2]


def error(made: Any, annotations: Path, classes: dict[int, str] = CLASSES) -> str:
    with pytest.raises(InputError) as raised:
        read_mots(annotations, made.frames, classes)
    return str(raised.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 1000 1 24 40", "line 1: a line must be: frame, object, class, height, width, RLE"),
        ("0 x 1 24 40 0", "line 1: a line must be"),
        ("9 1000 1 24 40 P^1", "line 1: there is no frame 9"),
        ("0 3000 3 24 40 P^1", "line 1: object 3000 has class 3; known classes are 1 (car), 2 (person)"),
        (
            "0 1000 1 23 40 hl0",
            "line 1: frame 0, object 1000: the mask's size is [23, 40], but the frame's is [24, 40]",
        ),
        ("0 1000 1 24 40 11", "line 1: frame 0, object 1000: malformed RLE: the runs cover 2 pixels"),
        ("0 1000 1 24 40 0Pn0\n0 1000 1 24 40 0Pn0", "line 2: frame 0, object 1000: 1000 appears twice"),
        ("0 1000 1 24 40 0Pn0\n1 1000 2 24 40 0Pn0", "line 2: frame 1, object 1000: 1000 is 'person' here"),
        ("\xe4", "is not MOTS text"),
    ],
)
def test_broken_text(made: Any, line: str, message: str) -> None:
    number(made, 0)
    annotations = write_text(made, "files", 0)
    (annotations / "b.txt").write_text(line, encoding="utf-8")
    raised = error(made, annotations)
    assert f"{annotations / 'b.txt'}" in raised and message in raised


def test_broken_pngs(made: Any) -> None:
    number(made, 0)
    annotations = write_pngs(made)
    png = annotations / "b" / "000000.png"
    Image.fromarray(np.full((24, 40), 3001, dtype=np.uint16)).save(png)
    assert "b/000000.png': object 3001 has class 3" in error(made, annotations)
    Image.fromarray(np.zeros((20, 40), dtype=np.uint16)).save(png)
    assert "b/000000.png' is 40x20 pixels" in error(made, annotations)
    png = png.rename(annotations / "b" / "000009.png")
    assert "b/000009.png' has no frame" in error(made, annotations)
    png.rename(annotations / "b" / "last.png")
    assert "the file name must be the frame number" in error(made, annotations)
    assert "no NAME.txt" in error(made, made.frames / "b")
    assert "two categories have the same name" in error(made, annotations, {1: "car", 2: "car"})


def test_round_trip_of_results(made: Any) -> None:
    folder = made.root / "mots"
    names, videos = read_labelled(*made.write())
    write_mots(videos, names, folder)
    lines = (folder / "a.txt").read_text().splitlines()
    assert [line.split()[:5] for line in lines[:2]] == [
        ["0", "1001", "1", "24", "40"],
        ["0", "2001", "2", "24", "40"],
    ]
    made.assert_same(made.checked(read_mots(folder, made.frames, CLASSES)))


def labelled(made: Any, *names: str, video: int) -> list[LabelledVideo]:
    """The videos and their results, with the frames of one video renamed."""
    dataset = made.dataset()
    dataset.videos[video].names = list(names)
    paths = made.write()
    write_ytvis(paths[0], dataset)
    return read_labelled(*paths)[1]


def test_frames_without_a_number_are_counted(made: Any) -> None:
    videos = labelled(made, *(f"city/img1/first_{t}.jpg" for t in range(3)), video=1)
    write_mots(videos, CLASSES, made.root / "mots")
    assert (made.root / "mots" / "city.txt").read_text().splitlines()[-1].startswith("2 2001 2 ")


def test_two_videos_with_one_name(made: Any) -> None:
    with pytest.raises(InputError, match="videos 1 and 2 are both called 'a'"):
        write_mots(labelled(made, "c/a/0.jpg", "c/a/1.jpg", video=2), CLASSES, made.root / "mots")
    assert not (made.root / "mots").exists()


def test_class_10_is_a_class_if_the_dataset_has_it(made: Any) -> None:
    """As in YouTube-VIS, which has 40 classes; otherwise it stands for regions to ignore."""
    paths = made.write()
    for path in paths:
        path.write_text(path.read_text().replace('"category_id": 2', '"category_id": 10'))
    content = json.loads(paths[0].read_text())
    content["categories"][1]["id"] = 10
    paths[0].write_text(json.dumps(content))
    names, videos = read_labelled(*paths)
    write_mots(videos, names, made.root / "mots")
    dataset = read_mots(made.root / "mots", made.frames, meta=made.root / "mots" / "meta.json")
    made.assert_same(dataset)
    assert dataset.names == {1: "car", 10: "person"}
    videos[0].instances[0].crowd = True
    with pytest.raises(InputError, match="MOTS keeps class 10 for crowds, but it is 'person' here"):
        write_mots(videos, names, made.root / "other")


def test_crowds_are_ignored_regions(made: Any) -> None:
    names, videos = read_labelled(made.write()[0])
    videos[1].instances[0].crowd = True
    write_mots(videos, names, made.root / "mots")
    lines = (made.root / "mots" / "b.txt").read_text().splitlines()
    assert [line.split()[1:3] for line in lines[:2]] == [["1001", "1"], ["10000", "10"]]
    dataset = read_mots(made.root / "mots", made.frames, meta=made.root / "mots" / "meta.json")
    crowds = [
        (annotation.video.id, annotation.category) for annotation in dataset.annotations if annotation.crowd
    ]
    assert crowds == [(2, 1), (2, 2)]


@pytest.mark.parametrize("id_", [-1, 2**31, 10**30])
def test_categories_that_cannot_be_classes(made: Any, id_: int) -> None:
    names, videos = read_labelled(made.write()[0])
    with pytest.raises(InputError, match=f"MOTS needs class ids from 0 to 2147482, but 'cow' has {id_}"):
        write_mots(videos, names | {id_: "cow"}, made.root / "mots")


def test_names_of_classes_replace_those_of_meta(made: Any) -> None:
    names, videos = read_labelled(made.write()[0])
    write_mots(videos, names, made.root / "mots")
    classes = {1: "van", 2: "person", 3: "cow"}
    dataset = read_mots(made.root / "mots", made.frames, classes, meta=made.root / "mots" / "meta.json")
    assert dataset.names == classes
    assert [a.id for a in dataset.annotations] == [1, 2, 4, 3]


def test_numbers_that_are_too_long(made: Any) -> None:
    root = write_text(made, "files", 0)
    (root / "a.txt").write_text(f"{'9' * 5000} 1 1 24 40 x")
    with pytest.raises(InputError, match="a.txt, line 1: a line must be: frame, object"):
        read_mots(root, made.frames, CLASSES)


def test_two_frames_with_one_number(made: Any) -> None:
    number(made, 0)
    annotations = write_pngs(made)
    frame, png = made.frames / "b/000000.jpg", annotations / "b/000000.png"
    (png.parent / "0.png").write_bytes(png.read_bytes())
    assert "b/0.png' and '" in (text := error(made, annotations)) and "same frame number" in text
    (png.parent / "0.png").unlink()
    (frame.parent / "0.jpg").write_bytes(frame.read_bytes())
    assert "b/0.jpg' and '" in (text := error(made, annotations)) and "same frame number" in text


def test_numbers_of_thousands_of_digits_are_counted(made: Any) -> None:
    videos = labelled(made, *(f"city/{'1' * 5000}{t}.jpg" for t in range(3)), video=1)
    write_mots(videos, CLASSES, made.root / "mots")
    assert (made.root / "mots" / "city.txt").read_text().splitlines()[-1].startswith("2 2001 2 ")
