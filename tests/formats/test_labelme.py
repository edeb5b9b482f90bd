"""labelme: shapes that are an instance, files next to frames, and errors that name file and shape."""

from __future__ import annotations

import base64
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seqformer.errors import InputError
from seqformer.formats.labelled import read_labelled
from seqformer.formats.labelme import read_labelme, write_labelme
from seqformer.formats.rle import decode_mask


def rectangle(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def polygon(label: str, points: list[list[float]], group: object = None) -> dict[str, Any]:
    return {"label": label, "points": points, "group_id": group, "shape_type": "polygon", "flags": {}}


def png(picture: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def mask_shape(picture: np.ndarray, points: list[list[float]]) -> dict[str, Any]:
    return {"label": "car", "points": points, "group_id": 1, "shape_type": "mask", "mask": png(picture)}


def write(folder: Path, name: str, *shapes: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content = {"version": "5.5.0", "shapes": list(shapes), "imagePath": f"{name}.jpg", "imageData": None}
    (folder / f"{name}.json").write_text(json.dumps(content))


def test_groups_are_instances(made: Any) -> None:
    """A frame has two parts of group 3; another label may have the same group."""
    folder = made.root / "labelme"
    square = rectangle(0, 0, 4, 4)
    write(
        folder / "a",
        "00000",
        polygon("person", square, 3),
        polygon("person", rectangle(10, 0, 14, 4), 3),
        polygon("car", square, 3),
        polygon("car", square),
    )
    write(folder / "a", "00002", polygon("person", square, 3))
    dataset = made.checked(read_labelme(folder, made.frames))
    assert dataset.names == {1: "car", 2: "person"}
    assert [video.names for video in dataset.videos.values()] == [["a/00000.jpg", "a/00002.jpg"]]
    person, car, alone = dataset.annotations
    assert [(a.id, a.category) for a in (person, car, alone)] == [(3, 2), (4, 1), (5, 1)]
    assert [int(decode_mask(mask).sum()) for mask in person.masks] == [32, 16]
    assert [[bool(mask) for mask in a.masks] for a in (car, alone)] == [[True, False]] * 2


def test_files_next_to_the_frames_of_one_video(made: Any) -> None:
    write(made.frames / "a", "00001", polygon("car", rectangle(0, 0, 4, 4)))
    dataset = read_labelme(made.frames / "a", made.frames / "a")
    assert [video.names for video in dataset.videos.values()] == [["00001.jpg"]]
    assert len(dataset.annotations) == 1


def test_masks_are_placed_by_their_first_and_last_pixel(made: Any) -> None:
    picture = np.random.default_rng(0).random((5, 3)) < 0.5
    picture[0, 0] = True
    for pixels in (picture, 255 * picture.astype(np.uint8)):
        write(made.root / "labelme/a", "00000", mask_shape(pixels, [[37, 19], [39, 23]]))
        (annotation,) = read_labelme(made.root / "labelme", made.frames).annotations
        expected = np.zeros((24, 40), dtype=bool)
        expected[19:, 37:] = picture
        np.testing.assert_array_equal(decode_mask(annotation.masks[0]), expected)


def test_what_is_written(made: Any) -> None:
    names, videos = read_labelled(made.write()[0])
    output = made.root / "out"
    write_labelme(videos, names, output, made.frames)
    content = json.loads((output / "a/00001.json").read_text())
    assert (output / "a" / content["imagePath"]).samefile(made.frames / "a/00001.jpg")
    assert not os.path.isabs(content["imagePath"])
    assert (content["imageHeight"], content["imageWidth"], content["imageData"]) == (24, 40, None)
    (shape,) = content["shapes"]
    assert (shape["label"], shape["group_id"], shape["shape_type"]) == ("car", 1, "mask")
    assert shape["points"] == [[4, 2], [12, 9]]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(shape["mask"]))))
    np.testing.assert_array_equal(pixels, made.masks["a"][0][1][2:10, 4:13])


def test_polygons_lose_holes_only(made: Any) -> None:
    names, videos = read_labelled(made.write()[0])
    write_labelme(videos, names, made.root / "out", polygons=True)
    content = json.loads((made.root / "out/a/00000.json").read_text())
    assert content["imagePath"] == "00000.jpg"
    assert content["shapes"][0]["points"] == rectangle(3, 2, 12, 9)
    for objects in made.masks.values():
        for t, mask in enumerate(objects[0]):
            mask[4, 5 + t] = True
    made.assert_same(read_labelme(made.root / "out", made.frames))


SQUARE = polygon("car", rectangle(0, 0, 4, 4))
ONE = np.ones((2, 2), np.uint8)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (SQUARE | {"label": None}, "no 'label'"),
        (SQUARE | {"group_id": "x"}, "'group_id' must be an integer, not 'x'"),
        (SQUARE | {"shape_type": "rectangle"}, "a rectangle is not a mask: draw a polygon or a mask"),
        (SQUARE | {"points": 1}, r"'points' must be a list of \[x, y\] in pixels"),
        (SQUARE | {"points": [[1]]}, r"'points' must be a list of \[x, y\] in pixels"),
        (SQUARE | {"points": [[1, 2], [3, 4]]}, "malformed polygon"),
        (
            SQUARE | {"points": [[0, 0], [4e4, 4e4], [0, 9]] * 99},
            "malformed polygon: its sides have a length of",
        ),
        (mask_shape(ONE, [[0, 0]]), "a mask needs two points inside the frame"),
        (mask_shape(ONE, [[39, 0], [40, 1]]), "a mask needs two points inside the frame"),
        (mask_shape(ONE, [[-1, 0], [0, 1]]), "a mask needs two points inside the frame"),
        (mask_shape(ONE, [[0, 0], [1e300, 1]]), "a mask needs two points inside the frame"),
        (mask_shape(ONE, [[1, 1], [0, 0]]), "a mask needs two points inside the frame"),
        (mask_shape(ONE, [[0, 0], [2, 1]]), "the mask is 2x2 pixels, but its points are for 3x2"),
        (mask_shape(np.ones((2, 2, 3), np.uint8), [[0, 0], [1, 1]]), r"the mask is in colour \(mode RGB\)"),
        (mask_shape(ONE, [[0, 0], [1, 1]]) | {"mask": None}, "'mask' must be a PNG in base 64"),
        (mask_shape(ONE, [[0, 0], [1, 1]]) | {"mask": "?"}, "'mask' is not a PNG in base 64"),
        (mask_shape(ONE, [[0, 0], [1, 1]]) | {"mask": "AAAA"}, "'mask' is not a PNG in base 64"),
    ],
)
def test_malformed_shapes(made: Any, shape: dict[str, Any], message: str) -> None:
    write(made.root / "labelme/a", "00000", SQUARE, shape)
    with pytest.raises(InputError, match=f"a/00000.json, shape 1: {message}"):
        read_labelme(made.root / "labelme", made.frames)


def test_a_mask_that_ends_early(made: Any) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (20, 20), dtype=np.uint8)
    shape = mask_shape(noise, [[0, 0], [19, 19]])
    shape["mask"] = shape["mask"][:200]
    write(made.root / "labelme/a", "00000", shape)
    with pytest.raises(InputError, match="a/00000.json, shape 0: 'mask' is not a PNG in base 64"):
        read_labelme(made.root / "labelme", made.frames)


def test_files_that_do_not_fit(made: Any) -> None:
    folder = made.root / "labelme"
    with pytest.raises(InputError, match="cannot read the folder"):
        read_labelme(folder, made.frames)
    folder.mkdir()
    with pytest.raises(InputError, match="no videos found"):
        read_labelme(folder, made.frames)
    write(folder / "a", "9")
    with pytest.raises(InputError, match="a/9.json' has no frame in '.*frames/a'"):
        read_labelme(folder, made.frames)
    (folder / "a/9.json").write_text("[]")
    with pytest.raises(InputError, match="a/9.json: not an object with 'shapes'"):
        read_labelme(folder, made.frames)
    (folder / "a/9.JSON").write_text('{"shapes": []}')
    (folder / "a/9.json").write_text('{"shapes": []}')
    with pytest.raises(InputError, match="two files have the same name but for their suffix"):
        read_labelme(folder, made.frames)
    (folder / "a/9.JSON").unlink()
    (folder / "a/9.json").write_text("{}")
    with pytest.raises(InputError, match="'shapes' must be a list of objects; is it labelme format"):
        read_labelme(folder, made.frames)


def test_a_label_that_meta_does_not_have(made: Any) -> None:
    names, videos = read_labelled(made.write()[0])
    write_labelme(videos, names, made.root / "out")
    write(made.root / "out/a", "00000", polygon("cow", rectangle(0, 0, 4, 4)))
    with pytest.raises(InputError, match="shape 0: 'cow' is not one of the categories: car, person"):
        read_labelme(made.root / "out", made.frames, made.root / "out/meta.json")


def test_an_instance_may_be_added_and_removed_in_labelme(made: Any) -> None:
    names, videos = read_labelled(made.write()[0])
    write_labelme(videos, names, made.root / "out")
    write(made.root / "out/a", "00000", polygon("car", rectangle(0, 0, 4, 4), 9))
    dataset = read_labelme(made.root / "out", made.frames, made.root / "out/meta.json")
    assert [a.id for a in dataset.annotations] == [9, 1, 2, 3, 4]
    assert [a.masks[0] is None for a in dataset.annotations[:3]] == [False, True, True]
