"""CVAT for video 1.1: masks and polygons, gaps in tracks, and errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from seqformer.errors import InputError
from seqformer.formats.check import check_dataset
from seqformer.formats.cvat import read_cvat, write_cvat
from seqformer.formats.labelled import read_labelled
from seqformer.formats.rle import decode_mask
from seqformer.formats.ytvis import Dataset, write_ytvis

HEIGHT, WIDTH, LENGTH = 24, 40, 6


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """A folder of six frames."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for t in range(LENGTH):
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / f"frame_{t:06d}.png")
    return folder


def xml(*tracks: str, labels: tuple[str, ...] = ("car", "person"), meta: str = "", kind: str = "task") -> str:
    named = "".join(f"<label><name>{label}</name><attributes/></label>" for label in labels)
    return (
        f'<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><{kind}>'
        f"<size>{LENGTH}</size><mode>interpolation</mode>{meta}<labels>{named}</labels></{kind}></meta>"
        f"{''.join(tracks)}</annotations>"
    )


def track(*shapes: str, label: str = "car", id_: int = 0) -> str:
    return f'<track id="{id_}" label="{label}" source="manual">{"".join(shapes)}</track>'


def rectangle(frame: int, left: float, top: float, right: float, bottom: float, **flags: int) -> str:
    """A polygon that covers these pixels, right and bottom exclusive."""
    points = f"{left},{top};{right},{top};{right},{bottom};{left},{bottom}"
    flags = {"keyframe": 1, "outside": 0, "occluded": 0} | flags
    more = " ".join(f'{key}="{value}"' for key, value in flags.items())
    attribute = '<attribute name="colour">red</attribute>'
    return f'<polygon frame="{frame}" {more} points="{points}" z_order="0">{attribute}</polygon>'


def mask(frame: int, picture: np.ndarray, left: int, top: int, outside: int = 0) -> str:
    """CVAT's RLE of a window (h, w) of the frame."""
    runs, value = [0], False
    for pixel in picture.flatten():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    window = f'left="{left}" top="{top}" width="{picture.shape[1]}" height="{picture.shape[0]}"'
    rle = ", ".join(map(str, runs))
    return f'<mask frame="{frame}" keyframe="1" outside="{outside}" occluded="0" rle="{rle}" {window}></mask>'


def box(frame: int, left: float, top: float, right: float, bottom: float) -> str:
    corners = f'xtl="{left}" ytl="{top}" xbr="{right}" ybr="{bottom}"'
    return f'<box frame="{frame}" keyframe="1" outside="0" occluded="0" {corners}></box>'


@pytest.fixture
def read(frames: Path, tmp_path: Path) -> Callable[..., Dataset]:
    """Reads XML texts, one per task, and checks that the dataset has no problems."""

    def read(*texts: str, fill_boxes: bool = False) -> Dataset:
        paths = []
        for number, text in enumerate(texts):
            paths.append(tmp_path / f"task_{number}.xml")
            paths[-1].write_text(text, encoding="utf-8")
        output = tmp_path / "out.json"
        write_ytvis(output, read_cvat(paths, frames, fill_boxes))
        dataset, problems = check_dataset(output, frames)
        assert problems == []
        return dataset

    return read


def drawn(dataset: Dataset) -> list[tuple[str, np.ndarray]]:
    """Category and masks (T, H, W) of every instance, sorted by category and pixels."""
    instances = []
    for annotation in dataset.annotations:
        masks = np.zeros((LENGTH, HEIGHT, WIDTH), dtype=bool)
        for mask, rle in zip(masks, annotation.masks, strict=True):
            mask[:] = rle is not None and decode_mask(rle)
        instances.append((dataset.names[annotation.category], masks))
    return sorted(instances, key=lambda instance: (instance[0], instance[1].tobytes()))


def test_every_frame_has_its_own_shape(read: Callable) -> None:
    """CVAT exports keyframes and the shapes it interpolated between them, here along a curve."""
    lefts = [2, 3, 6, 10]
    shapes = [rectangle(t, left, 3, left + 8, 9, keyframe=int(t in (0, 3))) for t, left in enumerate(lefts)]
    shapes.append(rectangle(4, 10, 3, 18, 9, outside=1))
    ((category, found),) = drawn(read(xml(track(*shapes, label="person"))))
    expected = np.zeros((LENGTH, HEIGHT, WIDTH), dtype=bool)
    for t, left in enumerate(lefts):
        expected[t, 3:9, left : left + 8] = True
    assert category == "person"
    np.testing.assert_array_equal(found, expected)


def test_gaps_are_interpolated(read: Callable) -> None:
    shapes = [
        rectangle(1, 2, 3, 10, 9),
        rectangle(3, 6, 5, 16, 13, occluded=1),
        rectangle(4, 20, 5, 30, 13, outside=1),
    ]
    ((_, found),) = drawn(read(xml(track(*shapes))))
    expected = np.zeros((LENGTH, HEIGHT, WIDTH), dtype=bool)
    expected[1, 3:9, 2:10] = True
    expected[2, 4:11, 4:13] = True
    expected[3, 5:13, 6:16] = True
    np.testing.assert_array_equal(found, expected)


def test_objects_that_reappear_and_stay(read: Callable) -> None:
    shapes = [
        rectangle(0, 1, 1, 7, 7),
        rectangle(1, 1, 1, 7, 7, outside=1),
        rectangle(4, 11, 1, 17, 7),
    ]
    ((_, found),) = drawn(read(xml(track(*shapes))))
    assert found.any(axis=(1, 2)).tolist() == [True, False, False, False, True, True]
    assert found[5, 1:7, 11:17].all()


def test_masks_are_repeated_until_the_next(read: Callable) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random((5, 7)) < 0.5, rng.random((8, 3)) < 0.5
    shapes = [mask(0, first, 3, 4), mask(2, second, 30, 10), mask(3, second, 30, 10, outside=1)]
    ((_, found),) = drawn(read(xml(track(*shapes))))
    expected = np.zeros((LENGTH, HEIGHT, WIDTH), dtype=bool)
    expected[:2, 4:9, 3:10] = first
    expected[2, 10:18, 30:33] = second
    np.testing.assert_array_equal(found, expected)


def test_a_track_without_shapes_is_no_instance(read: Callable) -> None:
    assert drawn(read(xml(track(), track(rectangle(0, 1, 1, 7, 7))))) != []
    assert drawn(read(xml(track()))) == []


def test_filled_boxes(read: Callable) -> None:
    text = xml(track(box(0, 2, 3, 10, 9), box(2, 6, 3, 14, 9)))
    ((_, found),) = drawn(read(text, fill_boxes=True))
    assert found[1, 3:9, 4:12].all() and found[1].sum() == 48


def test_a_rotated_box_is_not_filled_as_if_it_were_not(read: Callable) -> None:
    text = xml(track(box(2, 1, 1, 5, 5).replace("<box ", '<box rotation="30.00" ')))
    with pytest.raises(InputError, match="track 0, frame 2: rotated shapes are not supported"):
        read(text, fill_boxes=True)


def test_frames_are_counted_as_in_the_source(read: Callable) -> None:
    """A task that takes every fifth frame from the tenth on."""
    meta = "<start_frame>10</start_frame><stop_frame>35</stop_frame><frame_filter>step=5</frame_filter>"
    shapes = [rectangle(20, 1, 1, 7, 7), rectangle(30, 1, 1, 7, 7, outside=1)]
    ((_, found),) = drawn(read(xml(track(*shapes), meta=meta, kind="job")))
    assert found.any(axis=(1, 2)).tolist() == [False, False, True, True, False, False]


def test_several_tasks(frames: Path, read: Callable) -> None:
    for name in ("task_0", "task_1"):
        (frames / name).mkdir()
        for path in frames.glob("*.png"):
            (frames / name / path.name).write_bytes(path.read_bytes())
    dataset = read(
        xml(track(rectangle(0, 1, 1, 7, 7)), labels=("car",)),
        xml(track(rectangle(0, 1, 1, 7, 7), label="dog"), labels=("dog", "car")),
    )
    assert dataset.names == {1: "car", 2: "dog"}
    assert [(a.video.names[0], a.category) for a in dataset.annotations] == [
        ("task_0/frame_000000.png", 1),
        ("task_1/frame_000000.png", 2),
    ]


SQUARE = rectangle(0, 1, 1, 7, 7)
WITHOUT_META = "<annotations></annotations>"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotations>", "task_0.xml' is not XML"),
        ('<?xml version="1.0" encoding="x"?><annotations/>', "task_0.xml' is not XML: unknown encoding"),
        ("<html></html>", "its root is 'html', not 'annotations'"),
        ('<annotations><image id="0"/></annotations>', "export the task as 'CVAT for video 1.1'"),
        (WITHOUT_META, "projects must be exported task by task"),
        (xml(labels=()), "the task has no labels"),
        (xml(meta="<frame_filter>skip 2</frame_filter>"), "frame_filter 'skip 2' is not step=NUMBER"),
        (xml(meta="<start_frame>x</start_frame>"), "'x' is not a number of frames"),
        (xml().replace("<size>6<", "<size>7<"), "task_0.xml' has 7 frames, but '"),
        (xml(track(SQUARE, label="cow")), "track 0: there is no label 'cow'"),
        (xml(track(box(2, 1, 1, 5, 5), id_=3)), "track 3, frame 2: a box is not a mask: draw a polygon"),
        (xml(track('<polyline frame="1" points="1,1;2,2"/>')), "track 0, frame 1: a polyline is not a mask"),
        (xml(track(rectangle(6, 1, 1, 7, 7))), "track 0, frame 6: the task has no such frame"),
        (xml(track(SQUARE, SQUARE)), "track 0, frame 0: the track has two shapes in this frame"),
        (xml(track('<polygon frame="0" points="1,1;2,2"/>')), "track 0, frame 0: malformed polygon"),
        (xml(track('<polygon frame="0" points="1,1;2"/>')), "frame 0: the points of a polygon must be x,y"),
        (xml(track('<polygon frame="0" points="1,nan;2,1"/>')), "frame 0: the points of a polygon"),
        (xml(track('<polygon points="1,1;2,2;3,1"/>')), "'frame' of a polygon is not a number"),
        (
            xml(track(SQUARE, '<polygon frame="2" points="1,1;9,1;9,9"/>')),
            "track 0, frame 1: no shape, and the shapes before and after have different numbers of",
        ),
        (xml(track(mask(0, np.ones((3, 3), bool), 38, 0))), "window of 3x3 pixels at 38, 0 is not inside"),
        (
            xml(track('<mask frame="0" rle="0, 8" left="1" top="1" width="3" height="3"/>')),
            "track 0, frame 0: malformed RLE: the runs must cover 3 x 3 pixels",
        ),
        (
            xml(track(f'<mask frame="0" rle="{"9" * 5000}" left="1" top="1" width="3" height="3"/>')),
            "track 0, frame 0: malformed RLE: the runs must cover 3 x 3 pixels",
        ),
        (xml(meta=f"<start_frame>{'9' * 5000}</start_frame>"), "9' is not a number of frames"),
        (xml(meta=f"<frame_filter>step={'9' * 5000}</frame_filter>"), "9' is not step=NUMBER"),
    ],
)
def test_errors(read: Callable, text: str, message: str) -> None:
    with pytest.raises(InputError) as raised:
        read(text)
    assert message in str(raised.value) and "task_0.xml" in str(raised.value)


def written(made: Any) -> tuple[list[Path], Path]:
    names, videos = read_labelled(made.write()[0])
    write_cvat(videos, names, made.root / "out")
    return sorted((made.root / "out").glob("*.xml")), made.root / "out" / "meta.json"


def test_every_mask_is_a_track_that_ends_in_the_next_frame(made: Any) -> None:
    """CVAT reads the first mask of a track only, keeps its attributes, and forgets its group."""
    paths, _ = written(made)
    root = ElementTree.parse(paths[0]).getroot()
    assert root.findtext("meta/task/size") == "3"
    tracks = [
        (t.get("label"), [(m.get("frame"), m.get("outside"), m.findtext("attribute")) for m in t])
        for t in root.iter("track")
    ]
    assert tracks == [
        (label, [(str(t), "0", instance), (str(t + 1), "1", instance)][: 3 - t])
        for label, instance, frames in (("car", "1", (0, 1, 2)), ("person", "2", (0, 2)))
        for t in frames
    ]
    assert len({t.get("id") for t in root.iter("track")}) == 5
    assert {attribute.get("name") for attribute in root.iterfind("track/mask/attribute")} == {"instance"}
    labels = json.loads((made.root / "out" / "labels.json").read_text())
    assert [label["name"] for label in labels] == ["car", "person"]
    assert all(attribute["name"] == "instance" for label in labels for attribute in label["attributes"])
    assert [label.findtext("name") for label in root.iter("label")] == ["car", "person"]
    assert [name.text for name in root.iterfind("meta/task/labels/label/attributes/attribute/name")] == [
        "instance",
        "instance",
    ]


def test_instances_come_back_without_meta(made: Any) -> None:
    paths, _ = written(made)
    dataset = read_cvat(paths, made.frames)
    made.assert_same(dataset)
    assert [annotation.id for annotation in dataset.annotations] == [1, 2, 3, 4]


@pytest.mark.parametrize("text", ["", "  ", "x", "-1", "9" * 5000])
def test_a_mask_without_an_instance_is_an_instance_of_one_frame(made: Any, text: str) -> None:
    paths, meta = written(made)
    content = paths[0].read_text(encoding="utf-8")
    paths[0].write_text(content.replace(">2</attribute>", f">{text}</attribute>", 2), encoding="utf-8")
    dataset = read_cvat(paths, made.frames, meta=meta)
    assert [(a.id, sum(map(bool, a.masks))) for a in dataset.annotations[:3]] == [(1, 3), (5, 1), (2, 1)]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (">2</attribute>", ">1</attribute>", None),
        ("<name>car</name>", "<name>cow</name>", "meta.json': the label 'cow' is not among its 'categories'"),
        (
            'frame="2" outside="0"',
            'frame="1" outside="0"',
            "track 2: instance 1 of label 'car' appears twice in the frame",
        ),
    ],
)
def test_changes_of_instances_and_labels(made: Any, old: str, new: str, message: str | None) -> None:
    paths, meta = written(made)
    text = paths[0].read_text(encoding="utf-8")
    paths[0].write_text(text.replace(old, new), encoding="utf-8")
    if message is None:  # two labels with the same number are two instances
        made.assert_same(read_cvat(paths, made.frames, meta=meta))
        return
    with pytest.raises(InputError, match=message):
        read_cvat(paths, made.frames, meta=meta)
