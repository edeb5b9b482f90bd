"""Label Studio: the brush's encoding, tasks and regions, and errors that name task and region."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqformer.errors import InputError
from seqformer.formats.label_studio import decode_brush, encode_brush, read_label_studio, write_label_studio
from seqformer.formats.labelled import read_labelled
from seqformer.formats.rle import decode_mask

# Encoded by label_studio_sdk.converter.brush (2.1.2), mask2rle and encode_rle.
MASK = np.asarray([[0, 1, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 1]], bool)
MASK_RLE = [0, 0, 0, 60, 57, 27, 252, 96, 19, 255, 206, 1, 132, 255, 239, 128, 71, 254]
COLOURED = np.asarray([[0, 1, 0], [0, 0, 1]], bool)  # of the colour (12, 200, 7), opaque
COLOURED_RLE = [
    0,
    0,
    0,
    24,
    57,
    27,
    252,
    96,
    0,
    6,
    1,
    144,
    0,
    56,
    31,
    246,
    192,
    0,
    12,
    3,
    32,
    0,
    112,
    63,
    192,
]


def decode_slowly(rle: list[int]) -> list[int]:
    """A readable decoder of the format, value by value."""
    bits = "".join(f"{byte:08b}" for byte in rle)
    place = 0

    def read(size: int) -> int:
        nonlocal place
        place += size
        return int(bits[place - size : place], 2)

    count, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < count:
        same, size = read(1), sizes[read(2)]
        length = read(size) + 1
        values += [read(word)] * length if same else [read(word) for _ in range(length)]
    return values


def test_the_encoding_is_that_of_label_studio() -> None:
    assert encode_brush(MASK) == MASK_RLE
    np.testing.assert_array_equal(decode_brush(MASK_RLE, 3, 5), MASK)
    np.testing.assert_array_equal(decode_brush(COLOURED_RLE, 2, 3), COLOURED)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 30), st.floats(0, 1), st.integers(0, 2**32))
def test_any_mask_comes_back(height: int, width: int, scale: int, density: float, seed: int) -> None:
    mask = np.kron(np.random.default_rng(seed).random((height, width)) < density, np.ones((scale, 1))) > 0
    rle = encode_brush(mask)
    np.testing.assert_array_equal(decode_brush(rle, *mask.shape), mask)
    assert decode_slowly(rle) == (255 * np.repeat(mask.flatten(), 4)).tolist()


def test_runs_longer_than_a_length_can_say() -> None:
    mask = np.zeros((300, 400), dtype=bool)
    mask[100:250] = True
    np.testing.assert_array_equal(decode_brush(encode_brush(mask), 300, 400), mask)


@given(st.integers(1, 6), st.integers(1, 6), st.data())
def test_values_that_are_listed_one_by_one(height: int, width: int, data: st.DataObject) -> None:
    values = data.draw(
        st.lists(st.integers(0, 255), min_size=4 * height * width, max_size=4 * height * width)
    )
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    bits += f"0{2:02b}{len(values) - 1:08b}" + "".join(f"{value:08b}" for value in values)
    bits += "0" * (-len(bits) % 8)
    rle = [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]
    assert decode_slowly(rle) == values
    expected = np.reshape(values, (height, width, 4))[..., 3] > 0
    np.testing.assert_array_equal(decode_brush(rle, height, width), expected)


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        (None, "'rle' must be a list of bytes"),
        ([256] * 20, "'rle' must be a list of bytes"),
        (["a"] * 20, "'rle' must be a list of bytes"),
        (MASK_RLE[:6], "'rle' must be a list of bytes"),
        ([255] * 20, "the brush RLE has 4294967295 values, but the frame has 3 x 5 pixels"),
        (MASK_RLE[:-1], "malformed brush RLE: it ends early"),
        (MASK_RLE[:4] + [0] * 20, "malformed brush RLE: values of 1 bits"),
        (MASK_RLE[:8] + [255] * 20, "malformed brush RLE: it has more values than pixels"),
    ],
)
def test_malformed_encodings(rle: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        decode_brush(rle, 3, 5)


@pytest.mark.parametrize("size", range(1, len(COLOURED_RLE)))
def test_encodings_cut_short(size: int) -> None:
    with pytest.raises(InputError, match="malformed brush RLE"):
        decode_brush(COLOURED_RLE[:size], 2, 3)


def write(made: Any, results: bool = False) -> Path:
    dataset, results_json = made.write()
    names, videos = read_labelled(dataset, results_json if results else None)
    write_label_studio(videos, names, made.root / "out", "https://host/")
    return made.root / "out"


def test_what_is_written(made: Any) -> None:
    folder = write(made)
    tasks = json.loads((folder / "tasks.json").read_text())
    assert [task["data"] for task in tasks[2:4]] == [
        {"image": "https://host/a/00002.jpg", "file_name": "a/00002.jpg", "video_id": 1, "frame_id": 2},
        {"image": "https://host/b/00000.jpg", "file_name": "b/00000.jpg", "video_id": 2, "frame_id": 0},
    ]
    (region,) = tasks[1]["annotations"][0]["result"]
    assert region["value"].pop("rle") == encode_brush(made.masks["a"][0][1])
    assert region == {
        "id": "1-1",
        "type": "brushlabels",
        "from_name": "mask",
        "to_name": "image",
        "image_rotation": 0,
        "original_width": 40,
        "original_height": 24,
        "value": {"format": "rle", "brushlabels": ["car"]},
        "meta": {"text": ["instance 1"]},
    }
    root = ElementTree.parse(folder / "config.xml").getroot()
    labels = [(label.get("value"), label.get("category")) for label in root.iter("Label")]
    assert labels == [("car", "1"), ("person", "2")]
    assert root.find("BrushLabels").get("name") == region["from_name"]
    assert root.find("Image").get("name") == region["to_name"]


def test_results_are_predictions(made: Any) -> None:
    tasks = json.loads((write(made, results=True) / "tasks.json").read_text())
    assert all("annotations" not in task and len(task["predictions"]) == 1 for task in tasks)
    regions = tasks[0]["predictions"][0]["result"]
    assert [region["score"] for region in regions] == pytest.approx([0.9, 0.8])


def edited(made: Any, change: Callable[[Any], object]) -> Path:
    path = write(made) / "tasks.json"
    tasks = json.loads(path.read_text())
    change(tasks)
    path.write_text(json.dumps(tasks))
    return path


def region(tasks: Any) -> dict[str, Any]:
    return tasks[0]["annotations"][0]["result"][0]


def test_an_export_after_correction(made: Any) -> None:
    """One task has annotations, the last of them cancelled; names come from the URLs of images."""

    def change(tasks: list[Any]) -> None:
        for task in tasks:
            name = task["data"]["file_name"]
            local = name.startswith("a")
            task["data"] = {"image": f"/data/local-files/?d={name}" if local else f"http://host/{name}?x=1"}
            task["predictions"], task["annotations"] = task["annotations"], []
        car, person = tasks[0]["predictions"][0]["result"]
        more = [{"type": "choices", "value": {"choices": ["hard"]}}, {"type": "relation"}]
        person["meta"]["text"] = "instance 2"
        tasks[0]["annotations"] = [
            {"result": []},
            {"result": [person, *more]},
            {"result": [car], "was_cancelled": True},
        ]

    dataset = read_label_studio(edited(made, change), made.frames)
    made.masks["a"][0][0] = False
    made.assert_same(dataset)


def test_regions_without_an_instance_are_instances_of_one_frame(made: Any) -> None:
    path = edited(made, lambda tasks: region(tasks).update(meta=None))
    annotations = read_label_studio(path, made.frames).annotations
    assert [(a.id, [bool(mask) for mask in a.masks]) for a in annotations[:3]] == [
        (5, [True, False, False]),
        (2, [True, False, True]),
        (1, [False, True, True]),
    ]


def test_polygons_are_in_percent(made: Any) -> None:
    square = {"points": [[0, 0], [50, 0], [50, 50], [0, 50]], "polygonlabels": ["car"]}
    path = edited(made, lambda tasks: region(tasks).update(type="polygonlabels", value=square))
    mask = decode_mask(read_label_studio(path, made.frames).annotations[0].masks[0])
    assert mask[:12, :20].all() and mask.sum() == 12 * 20


def set_region(**values: Any) -> Callable[[Any], None]:
    return lambda tasks: region(tasks).update(values)


def set_data(**values: Any) -> Callable[[Any], None]:
    return lambda tasks: tasks[0]["data"].update(values)


BRUSH = {"format": "rle", "rle": MASK_RLE, "brushlabels": ["car"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tasks: tasks.append(1), "not a list of tasks with 'data'"),
        (lambda tasks: tasks[0].pop("data"), "not a list of tasks with 'data'"),
        (set_data(file_name=None, image=None), "task 0: 'data' has neither 'file_name' nor 'image'"),
        (set_data(file_name=None, image="http://[x"), "task 0: malformed 'image'"),
        (set_data(video_id="x"), "task 0: 'video_id' must be an integer"),
        (set_data(file_name="../b/00000.jpg"), "video 1: '../b/00000.jpg' is not in the folder of frames"),
        (set_data(file_name="/etc/passwd"), "video 1: '/etc/passwd' is not in the folder of frames"),
        (set_data(file_name="a/9.jpg"), "video 1: no frame '.*a/9.jpg'"),
        (lambda tasks: tasks[0].update(annotations=[1]), "task 0: 'annotations' must be a list of objects"),
        (lambda tasks: tasks[0].update(annotations=[{}]), "task 0: 'result' must be a list of objects"),
        (set_region(type="rectanglelabels"), "task 0, region 0: rectanglelabels are not masks"),
        (set_region(value=1), "task 0, region 0: a region needs exactly one label"),
        (set_region(value=BRUSH | {"brushlabels": ["a", "b"]}), "a region needs exactly one label"),
        (set_region(value=BRUSH), "region 0: the brush RLE has 60 values, but the frame has 24 x 40 pixels"),
        (set_region(original_width=80), "region 0: the region is for 80x24 pixels, but the frame is 40x24"),
        (set_region(image_rotation=90), "region 0: rotated images are not supported"),
        (set_region(score="x"), "region 0: 'score' must be a number"),
        (set_region(meta={"text": [1]}), "region 0: the 'text' of 'meta' must be a list of texts"),
        (set_region(meta={"text": ["instance 2"]}), "region 1: instance 2 is 'person' here and 'car' in an"),
        (
            set_region(type="polygonlabels", value={"polygonlabels": ["car"], "points": 1}),
            "region 0: 'points' must be a list",
        ),
    ],
)
def test_unusable_exports(made: Any, change: Callable[[Any], object], message: str) -> None:
    with pytest.raises(InputError, match=f"tasks.json.*: .*{message}|tasks.json: {message}"):
        read_label_studio(edited(made, change), made.frames)


def config(*labels: str) -> str:
    return f'<View><BrushLabels name="m" toName="i">{"".join(labels)}</BrushLabels></View>'


def test_labels_without_a_category_get_free_ids(made: Any) -> None:
    path = write(made)
    (path / "config.xml").write_text(
        config('<Label value="cow" category="7"/>', '<Label value="person"/>', '<Label value="car"/>')
    )
    dataset = read_label_studio(path / "tasks.json", made.frames, path / "config.xml")
    assert dataset.names == {7: "cow", 8: "person", 9: "car"}
    made.assert_same(dataset)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no file '.*config.xml'"),
        ("<View>", "config.xml' is not XML"),
        ("<View/>", "no BrushLabels or PolygonLabels with a Label"),
        (config('<Label value="car" category="x"/>'), "the category 'x' is not a number"),
        (
            config('<Label value="car" category="1"/><Label value="person" category="1"/>'),
            "two labels have the same category",
        ),
        (config('<Label value="cow"/>'), "task 0, region 0: there is no label 'car' in '.*config.xml'"),
    ],
)
def test_unusable_configurations(made: Any, text: str | None, message: str) -> None:
    path = write(made)
    (path / "config.xml").unlink()
    if text is not None:
        (path / "config.xml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_label_studio(path / "tasks.json", made.frames, path / "config.xml")
