"""YouTube-VIS JSON: any malformed content is reported without a crash; round trips."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_api

from seqformer.errors import InputError
from seqformer.formats.checks import refuse
from seqformer.formats.ytvis import parse_dataset, read_ytvis, write_ytvis

MASK = {"size": [4, 5], "counts": [3, 4, 13]}
DATA = {
    "categories": [{"id": 1, "name": "one"}, {"id": 5, "name": "two"}],
    "videos": [
        {"id": 1, "height": 4, "width": 5, "length": 2, "file_names": ["a/0.jpg", "a/1.jpg"]},
        {"id": 2, "height": 4, "width": 5, "file_names": ["b/0.jpg"]},
    ],
    "annotations": [
        {
            "id": 1,
            "video_id": 1,
            "category_id": 5,
            "iscrowd": 0,
            "segmentations": [MASK, None],
            "bboxes": [[0, 0, 2, 4], None],
            "areas": [4, None],
        },
        {"id": 2, "video_id": 2, "category_id": 1, "segmentations": [[[0, 0, 3, 0, 3, 3]]]},
    ],
}


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Yields the path of every value, so that a test can replace it."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield (*path, key)
        yield from places(child, (*path, key))


TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=3)
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 2**70)
    | st.floats()
    | TEXT
    | st.sampled_from([MASK, "counts", "\ud800", [], {}]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)


def test_valid_content() -> None:
    dataset = parse_dataset(DATA, "data.json", refuse)
    assert dataset.names == {1: "one", 5: "two"}
    assert [(v.id, v.names, v.length) for v in dataset.videos.values()] == [
        (1, ["a/0.jpg", "a/1.jpg"], 2),
        (2, ["b/0.jpg"], 1),
    ]
    first, second = dataset.annotations
    assert (first.video.id, first.category, first.crowd) == (1, 5, False)
    assert first.boxes == [[0, 0, 2, 4], None] and first.areas == [4.0, 0.0]
    assert first.masks[0]["size"] == [4, 5] and first.masks[1] is None
    assert second.boxes is None and second.areas is None and second.masks[0] is not None


@settings(max_examples=300)
@given(place=st.sampled_from(list(places(DATA))), value=ANYTHING)
def test_every_problem_is_a_line(place: tuple, value: Any) -> None:
    data = copy.deepcopy(DATA)
    target = data
    for key in place[:-1]:
        target = target[key]
    changed = json.dumps(target[place[-1]]) != json.dumps(value)
    target[place[-1]] = value
    problems: list[str] = []
    dataset = parse_dataset(data, "data.json", problems.append)
    assert all(problem.startswith("data.json: ") and "\n" not in problem for problem in problems)
    if problems:
        assert changed
        with pytest.raises(InputError) as first:
            parse_dataset(data, "data.json", refuse)
        assert str(first.value) == problems[0]
    for annotation in dataset.annotations or ():
        assert annotation.category in dataset.names
        assert len(annotation.masks) == annotation.video.length


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "data.json"
    dataset = parse_dataset(DATA, "data.json")
    write_ytvis(path, dataset)
    back = read_ytvis(path)
    annotation = dataset.annotations[1]
    annotation.boxes, annotation.areas = back.annotations[1].boxes, back.annotations[1].areas
    assert back == dataset
    assert (annotation.boxes, annotation.areas) == ([[1.0, 0.0, 2.0, 2.0]], [3.0]), "computed from the mask"
    dataset.annotations = None
    write_ytvis(path, dataset)
    assert read_ytvis(path) == dataset
    assert list(path.parent.iterdir()) == [path]


def test_content_must_be_an_object() -> None:
    with pytest.raises(InputError, match="data.json: not an object with 'videos' and 'categories'"):
        parse_dataset([], "data.json", [].append)


def test_integral_floats_are_integers() -> None:
    data = json.loads(json.dumps(DATA), parse_int=float)
    for annotation in data["annotations"]:
        for mask in annotation["segmentations"]:
            if isinstance(mask, dict):
                mask["counts"] = MASK["counts"]
    dataset = parse_dataset(data, "data.json")
    assert dataset == parse_dataset(DATA, "data.json")
    assert all(type(v.id) is type(v.height) is int for v in dataset.videos.values())


def problems_of(change: Callable[[dict[str, Any]], None], copies: int = 27) -> list[str]:
    """Returns the problems of a dataset with that many annotations of the first video."""
    data = copy.deepcopy(DATA)
    data["annotations"] = [copy.deepcopy(DATA["annotations"][0]) | {"id": n + 1} for n in range(copies)]
    change(data)
    problems: list[str] = []
    parse_dataset(data, "data.json", problems.append)
    return problems


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda data: data["videos"][0].update(height="4"),
            ["data.json: video 1: 'height' must be a positive integer, not '4'"],
        ),
        (
            lambda data: [entry.update({key: "1"}) for entry, key in ids_of_first_video(data)],
            ["data.json: video 1: 'id' must be a positive integer, not '1'"],
        ),
        (
            lambda data: data["categories"][1].update(id="5"),
            [
                "data.json: a category needs an integer 'id' and a 'name', but has the id '5' and "
                "the name 'two'"
            ],
        ),
        (
            lambda data: [a.update(category_id=n + 6.0) for n, a in enumerate(data["annotations"][:2])],
            [
                "data.json: video 1, annotation 1: category_id 6 is not one of the categories 1 to 5",
                "data.json: video 1, annotation 2: category_id 7 is not one of the categories 1 to 5",
            ],
        ),
        (
            lambda data: [a.update(category_id="7") for a in data["annotations"]],
            [
                f"data.json: {where}: category_id '7' is not one of the categories 1 to 5"
                for where in ("video 1, annotation 1", "the same in 26 more annotations")
            ],
        ),
        (
            lambda data: [a.update(video_id=str(n)) for n, a in enumerate(data["annotations"])],
            [
                "data.json: video 0, annotation 1: 'video_id' must be an integer, not '0'",
                "data.json: the same in 26 more annotations: 'video_id' must be an integer, not '0'",
            ],
        ),
        (
            lambda data: [a.update(id=str(n)) for n, a in enumerate(data["annotations"])],
            [
                "data.json: video 1, annotation 0: the id must be an integer, not '0'",
                "data.json: the same in 26 more annotations: the id must be an integer, not '0'",
            ],
        ),
        (
            lambda data: data["annotations"][3].update(iscrowd="0"),
            ["data.json: video 1, annotation 4: 'iscrowd' must be 0 or 1, not '0'"],
        ),
    ],
)
def test_one_error_is_one_problem(change: Callable[[dict[str, Any]], None], expected: list[str]) -> None:
    assert problems_of(change) == expected


def ids_of_first_video(data: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    yield data["videos"][0], "id"
    yield from ((annotation, "video_id") for annotation in data["annotations"])


@pytest.mark.parametrize(
    ("height", "width", "usable"), [(2**14, 2**15, True), (24000, 24000, False), (10**6, 10**6, False)]
)
def test_frames_that_pycocotools_cannot_count_are_refused(height: int, width: int, usable: bool) -> None:
    """Masks in such frames end the process, or take hours."""
    data = copy.deepcopy(DATA)
    data["videos"][1].update(height=height, width=width)
    data["annotations"][1]["segmentations"] = [[[0, 0, 9, 0, 9, 9], [5, 5, width, 5, width, 9]]]
    if usable:
        dataset = parse_dataset(data, "data.json")
        assert mask_api.area(dataset.annotations[1].masks[0]) > width
    else:
        with pytest.raises(InputError, match=f"video 2: frames of {width}x{height} pixels are too large"):
            parse_dataset(data, "data.json")
