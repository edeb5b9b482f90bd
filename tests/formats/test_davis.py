"""DAVIS and YouTube-VOS: round trips of datasets and results, and errors that name the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_api

from seqformer.errors import InputError
from seqformer.formats.davis import read_davis, write_davis
from seqformer.formats.labelled import read_labelled


def write_pngs(made: Any, mode: str, numbers: tuple[int, int] = (3, 7)) -> Path:
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
def test_ids_become_instances(made: Any, mode: str) -> None:
    dataset = made.checked(read_davis(write_pngs(made, mode), made.frames))
    assert dataset.names == {1: "object"}
    made.assert_same(dataset, {name: ["object"] * 2 for name in made.masks})
    first = dataset.annotations[0]
    for mask, box, area in zip(first.masks, first.boxes, first.areas, strict=True):
        assert (box, area) == (mask_api.toBbox(mask).tolist(), mask_api.area(mask))
    gone = next(a for a in dataset.annotations if None in a.masks)
    assert (gone.masks[1], gone.boxes[1], gone.areas[1]) == (None, None, 0)


def write_meta(made: Any, **more: Any) -> Path:
    path = made.root / "meta.json"
    objects = {
        name: {"objects": {n: {"category": c} for n, c in zip("37", made.categories[name], strict=True)}}
        for name in made.masks
    }
    path.write_text(json.dumps({"videos": objects} | more))
    return path


def test_youtube_vos_categories(made: Any) -> None:
    dataset = read_davis(write_pngs(made, "P"), made.frames, write_meta(made))
    assert dataset.names == {1: "car", 2: "person"}
    made.assert_same(made.checked(dataset))


def test_frames_without_a_png_are_dropped(made: Any) -> None:
    annotations = write_pngs(made, "P")
    (annotations / "a" / "00001.png").unlink()
    dataset = made.checked(read_davis(annotations, made.frames))
    assert dataset.videos[1].names == ["a/00000.jpg", "a/00002.jpg"]


def test_void_pixels(made: Any) -> None:
    dataset = made.checked(read_davis(write_pngs(made, "P", (3, 255)), made.frames, void=255))
    assert [annotation.video.id for annotation in dataset.annotations] == [1, 2]


def broken_davis(what: str, made: Any, annotations: Path) -> Path | None:
    """Breaks something; returns the meta.json to use."""
    png = annotations / "b" / "00001.png"
    frame = made.frames / "b" / "00001.jpg"
    if what == "colour":
        Image.new("RGB", (40, 24)).save(png)
    elif what == "size":
        Image.new("L", (41, 24)).save(png)
    elif what == "unreadable":
        png.write_bytes(b"no picture")
    elif what == "frame":
        frame.unlink()
    elif what == "frame size":
        Image.new("RGB", (41, 24)).save(frame)
    elif what == "frame unreadable":
        frame.write_bytes(b"no picture")
    elif what == "no PNGs":
        for path in (annotations / "b").iterdir():
            path.unlink()
    elif what == "no videos":
        for folder in annotations.iterdir():
            folder.rename(made.root / folder.name)
    elif what == "no folder":
        annotations.rename(made.root / "elsewhere")
    elif what == "categories":
        return write_meta(made, categories=[{"id": 1, "name": "car"}])
    elif what == "no categories":
        return write_meta(made, categories=[])
    else:
        objects = {"b": {"objects": {"7": {"category": "car"}}}, "a": {"objects": {}}}
        return write_meta(made, videos=objects if what == "object" else {"a": 1})
    return None


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("colour", r"b/00001.png' is in colour \(mode RGB\): ids must be"),
        ("size", "b/00001.png' is 41x24 pixels, but its frame is 40x24"),
        ("unreadable", "b/00001.png' cannot be read: cannot identify"),
        ("frame", "b/00001.png' has no frame in "),
        ("frame size", "b/00001.jpg' is 41x24 pixels, but '.*b/00000.jpg' is 40x24"),
        ("frame unreadable", "b/00001.jpg' cannot be read"),
        ("no PNGs", "Annotations/b': no PNGs"),
        ("no videos", "no videos found"),
        ("no folder", "cannot read the folder '.*Annotations'"),
        ("object", "a/00000.png': object 3 has no category in '.*meta.json'"),
        ("meta", "meta.json' is not YouTube-VOS's meta.json"),
        ("categories", "meta.json': 'person' is not among its 'categories'"),
        ("no categories", "meta.json: no categories"),
    ],
)
def test_broken_files(made: Any, what: str, message: str) -> None:
    annotations = write_pngs(made, "P")
    meta = broken_davis(what, made, annotations)
    with pytest.raises(InputError, match=message):
        read_davis(annotations, made.frames, meta)


def written(dataset_json: Path, results_json: Path) -> Path:
    """The folder of results written as DAVIS."""
    names, videos = read_labelled(dataset_json, results_json)
    folder = dataset_json.parent / "masks"
    write_davis(videos, names, folder)
    return folder


def test_round_trip_of_results(made: Any) -> None:
    folder = written(*made.write())
    made.assert_same(made.checked(read_davis(folder / "Annotations", made.frames, folder / "meta.json")))


def test_round_trip_of_category_ids(made: Any) -> None:
    """Names are not sorted by id, ids have gaps, and one category has no instance."""
    paths = made.write()
    data, results = (json.loads(path.read_text()) for path in paths)
    names = [(1, "red"), (2, "blue"), (4, "none"), (9, "green")]
    data["categories"] = [{"id": id_, "name": name} for id_, name in names]
    results[0]["category_id"] = 9
    for path, content in zip(paths, (data, results), strict=True):
        path.write_text(json.dumps(content))
    folder = written(*paths)
    back = read_davis(folder / "Annotations", made.frames, folder / "meta.json")
    assert list(back.names.items()) == names
    assert [a.category for a in back.annotations] == [r["category_id"] for r in results] == [9, 2, 2, 1]


def test_pictures_and_meta(made: Any) -> None:
    folder = written(*made.write())
    with Image.open(folder / "Annotations" / "a" / "00000.png") as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), made.ids("a", 0, (1, 2)))
        assert picture.getpalette()[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
    meta = json.loads((folder / "meta.json").read_text())
    assert meta["videos"]["a"]["objects"] == {
        "1": {"category": "car", "id": 1, "score": pytest.approx(0.9)},
        "2": {"category": "person", "id": 2, "score": pytest.approx(0.8)},
    }


def test_too_many_instances_for_a_picture(made: Any) -> None:
    dataset, results = made.write()
    content = json.loads(results.read_text())
    for n in range(256):
        pixel = {"size": [24, 40], "counts": [n, 1, 959 - n]}
        content.append(content[0] | {"segmentations": [pixel, None, None]})
    results.write_text(json.dumps(content))
    with pytest.raises(InputError, match="video 1: 258 instances, but a PNG can hold 255"):
        written(dataset, results)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["../../secret/00000.jpg", "a/00001.jpg", "a/00002.jpg"], "is not in the folder of frames"),
        (["a/00000.jpg", "a/00001.jpg", "a/9.jpg"], "no frame '.*a/9.jpg'"),
        (["a/00000.jpg", "b/00000.jpg", "a/00001.jpg"], "two frames of 'a' have the same name"),
        (["a/00000.jpg", "a/00001.jpg"], "a/00002.png' has no frame in"),
    ],
)
def test_a_meta_that_names_other_frames(made: Any, names: list[str], message: str) -> None:
    folder = written(*made.write())
    meta = json.loads((folder / "meta.json").read_text())
    meta["videos"]["a"]["file_names"] = names
    (folder / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(InputError, match=message):
        read_davis(folder / "Annotations", made.frames, folder / "meta.json")


def test_two_videos_with_one_id(made: Any) -> None:
    folder = written(*made.write())
    meta = json.loads((folder / "meta.json").read_text())
    meta["videos"]["a"]["id"] = 2
    (folder / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(InputError, match="two videos have the id 2"):
        read_davis(folder / "Annotations", made.frames, folder / "meta.json")


def test_frames_in_the_root_folder(made: Any) -> None:
    """The annotations are in a folder named after the video's id."""
    paths = made.write()
    content = json.loads(paths[0].read_text())
    for video in content["videos"]:
        video["file_names"] = [name.replace("a/", "") for name in video["file_names"]]
    paths[0].write_text(json.dumps(content))
    for path in (made.frames / "a").iterdir():
        path.rename(made.frames / path.name)
    folder = written(*paths)
    assert sorted(path.name for path in (folder / "Annotations").iterdir()) == ["1", "b"]
    dataset = read_davis(folder / "Annotations", made.frames, folder / "meta.json")
    assert dataset.videos[1].names == ["00000.jpg", "00001.jpg", "00002.jpg"]
    assert [a.id for a in dataset.annotations] == [1, 2, 3, 4]


def test_folders_that_lead_back_to_themselves(made: Any) -> None:
    annotations = write_pngs(made, "P")
    (annotations / "a" / "loop").symlink_to(annotations)
    with pytest.raises(InputError, match="folders are nested deeper than 16 levels|has no frame in"):
        read_davis(annotations, made.frames)


def test_a_picture_is_not_decoded_before_its_size_is_known(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotations = write_pngs(made, "P")
    Image.new("L", (9000, 9000)).save(annotations / "a" / "00000.png")
    loaded = []
    load = Image.Image.load
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: loaded.append(self.size) or load(self))
    with pytest.raises(InputError, match="a/00000.png' is 9000x9000 pixels, but its frame is 40x24"):
        read_davis(annotations, made.frames)
    assert (9000, 9000) not in loaded
