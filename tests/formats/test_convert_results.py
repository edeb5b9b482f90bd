"""convert_results.py: what is written comes back, through convert_dataset.py, pycocotools or evaluation."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from seqformer.cli import convert_dataset
from seqformer.cli.convert_results import main
from seqformer.evaluation import evaluate_ytvis


def convert(format_: str, made: Any, output: str, *options: str) -> Path:
    dataset, results = made.write()
    path = made.root / output
    arguments = ["--dataset", str(dataset), "--results", str(results), "--output", str(path)]
    main([format_, *arguments, *options])
    return path


def convert_back(made: Any, *arguments: object) -> dict[str, Any]:
    output = made.root / "back.json"
    convert_dataset.main([*map(str, arguments), "--frames", str(made.frames), "--output", str(output)])
    return json.loads(output.read_text())


def test_davis_comes_back(made: Any, found_masks: Callable) -> None:
    folder = convert("davis", made, "masks")
    back = convert_back(
        made, "davis", "--annotations", folder / "Annotations", "--meta", folder / "meta.json"
    )
    wanted, found = found_masks(made.dataset()), found_masks(back)
    assert found.keys() == wanted.keys()
    for name, instances in found.items():
        for (category, mask), (wanted_category, wanted_mask) in zip(instances, wanted[name], strict=True):
            assert category == wanted_category
            np.testing.assert_array_equal(mask, wanted_mask)


def test_davis_pictures(made: Any) -> None:
    folder = convert("davis", made, "masks")
    with Image.open(folder / "Annotations" / "a" / "00000.png") as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), made.ids("a", 0, (1, 2)))
        assert picture.getpalette()[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
    meta = json.loads((folder / "meta.json").read_text())
    assert meta["videos"]["a"]["objects"] == {
        "1": {"category": "car", "score": pytest.approx(0.9)},
        "2": {"category": "person", "score": pytest.approx(0.8)},
    }


def test_mots_comes_back(made: Any, found_masks: Callable) -> None:
    folder = convert("mots", made, "mots")
    lines = (folder / "a.txt").read_text().splitlines()
    assert [line.split()[:5] for line in lines[:2]] == [
        ["0", "1001", "1", "24", "40"],
        ["0", "2001", "2", "24", "40"],
    ]
    back = convert_back(made, "mots", "--annotations", folder, "--classes", "1=car", "2=person")
    results = [
        {key: a[key] for key in ("video_id", "category_id", "segmentations")} | {"score": 1.0}
        for a in back["annotations"]
    ]
    assert evaluate_ytvis(made.dataset(), results)["AP"] == pytest.approx(100)


def test_coco_by_frame(made: Any) -> None:
    coco = COCO(str(convert("coco", made, "frames.json")))
    assert [image["file_name"] for image in coco.dataset["images"]] == [
        "a/00000.jpg",
        "a/00001.jpg",
        "a/00002.jpg",
        "b/00000.jpg",
        "b/00001.jpg",
    ]
    assert [a["track_id"] for a in coco.dataset["annotations"]] == [1, 1, 1, 2, 2, 3, 3, 4, 4]
    for annotation in coco.dataset["annotations"]:
        image = coco.imgs[annotation["image_id"]]
        name = "ab"[image["video_id"] - 1]
        index = (annotation["track_id"] - 1) % 2
        wanted = made.masks[name][index][image["frame_id"]]
        np.testing.assert_array_equal(coco.annToMask(annotation), wanted)
        assert coco.cats[annotation["category_id"]]["name"] == made.categories[name][index]
        assert annotation["area"] == wanted.sum()
        assert annotation["score"] == pytest.approx(1 - 0.1 * annotation["track_id"])


def edited_results(made: Any, change: Callable[[list], None]) -> tuple[Path, Path]:
    dataset, path = made.write()
    results = json.loads(path.read_text())
    change(results)
    path.write_text(json.dumps(results))
    return dataset, path


def test_higher_scores_lie_in_front_and_low_ones_are_left_out(made: Any) -> None:
    def change(results: list) -> None:
        everywhere = [{"size": [24, 40], "counts": [0, 960]}] * 3
        results.append(results[0] | {"score": 0.85, "segmentations": everywhere})
        results.append(results[1] | {"score": 0.3})

    dataset, results = edited_results(made, change)
    output = made.root / "masks"
    arguments = ["--dataset", str(dataset), "--results", str(results), "--output", str(output)]
    main(["davis", *arguments])
    picture = np.asarray(Image.open(output / "Annotations" / "a" / "00000.png"))
    np.testing.assert_array_equal(picture == 1, made.masks["a"][0][0])
    assert (picture[~made.masks["a"][0][0]] == 2).all()
    assert len(json.loads((output / "meta.json").read_text())["videos"]["a"]["objects"]) == 3


def test_one_instance_under_two_categories_is_written_once(made: Any) -> None:
    dataset, results = edited_results(made, lambda r: r.append(r[0] | {"category_id": 2, "score": 0.95}))
    output = made.root / "frames.json"
    main(["coco", "--dataset", str(dataset), "--results", str(results), "--output", str(output)])
    first = json.loads(output.read_text())["annotations"][0]
    assert (first["category_id"], first["score"]) == (2, 0.95)
    assert len({a["track_id"] for a in json.loads(output.read_text())["annotations"]}) == 4


def test_frame_numbers_of_names_that_are_none(made: Any) -> None:
    dataset, results = made.write()
    data = json.loads(dataset.read_text())
    data["videos"][0]["file_names"] = [f"city/img1/first_{t}.jpg" for t in range(3)]
    dataset.write_text(json.dumps(data))
    output = made.root / "mots"
    main(["mots", "--dataset", str(dataset), "--results", str(results), "--output", str(output)])
    assert (output / "city.txt").read_text().splitlines()[-1].startswith("2 2001 2 ")


def set_names(*names: str) -> Callable[[dict], None]:
    return lambda data: data["videos"][1].update(file_names=list(names))


@pytest.mark.parametrize(
    ("format_", "change", "message"),
    [
        ("davis", set_names("b/0.jpg", "c/0.jpg"), "video 2: its frames must lie in one folder"),
        ("davis", set_names("../b/0.jpg", "../b/1.jpg"), "video 2: its frames must lie in one folder below"),
        ("davis", set_names("/b/0.jpg", "/b/1.jpg"), "video 2: its frames must lie in one folder below"),
        ("davis", set_names("a/0.jpg", "a/1.jpg"), "video 2: its frames lie in the folder of video 1, 'a'"),
        ("davis", set_names("b/0.jpg", "b/0.png"), "video 2: two frames have the same name"),
        ("mots", set_names("c/a/0.jpg", "c/a/1.jpg"), "videos 1 and 2 are both called 'a'"),
        ("coco", lambda data: data["videos"].pop(), "results.json: video 2, result 2: there is no video 2"),
        ("coco", lambda data: data["categories"].pop(), "result 1: there is no category 2"),
        ("coco", lambda data: data["videos"][0].pop("height"), "dataset.json: video 1: 'height' must be"),
    ],
)
def test_what_cannot_be_written(
    made: Any,
    capsys: pytest.CaptureFixture[str],
    format_: str,
    change: Callable[[dict], None],
    message: str,
) -> None:
    dataset, results = made.write()
    data = json.loads(dataset.read_text())
    change(data)
    dataset.write_text(json.dumps(data))
    arguments = ["--dataset", str(dataset), "--results", str(results), "--output", str(made.root / "out")]
    with pytest.raises(SystemExit) as done:
        main([format_, *arguments])
    errors = capsys.readouterr().err
    assert done.value.code == 2
    assert errors.startswith("error: ") and message in errors and errors.count("\n") == 1
    assert not list(made.root.glob("out*"))


def test_other_refusals(made: Any, capsys: pytest.CaptureFixture[str]) -> None:
    dataset, results = made.write()
    usual = ["--dataset", str(dataset), "--results", str(results)]
    for options, message in (
        (["--output", str(made.frames)], "exists: remove it"),
        (["--output", str(made.root / "out"), "--score-threshold", "2"], "give a score from 0 to 1"),
        (["--output", str(made.root / "out"), "--results", "/nowhere.json"], "no file '/nowhere.json'"),
    ):
        with pytest.raises(SystemExit) as done:
            main(["davis", *usual, *options])
        assert done.value.code == 2
        assert message in capsys.readouterr().err
    assert sorted(path.name for path in made.frames.iterdir()) == ["a", "b"]


@pytest.mark.slow
def test_commands(made: Any, repository: Path) -> None:
    """As a user runs them: results to pictures, and pictures to a dataset."""
    dataset, results = made.write()
    masks, back = made.root / "masks", made.root / "back.json"
    for tool, *arguments in (
        ("convert_results", "davis", "--dataset", dataset, "--results", results, "--output", masks),
        ("convert_dataset", "davis", "--annotations", masks / "Annotations", "--frames", made.frames)
        + ("--output", back),
    ):
        command = [sys.executable, str(repository / "tools" / f"{tool}.py"), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert done.stdout == f"{back}: 2 videos, 1 categories, 4 annotations\n"


def test_too_many_instances_for_a_picture(made: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def change(results: list) -> None:
        for n in range(256):
            pixel = {"size": [24, 40], "counts": [n, 1, 959 - n]}
            results.append(results[0] | {"segmentations": [pixel, None, None]})

    dataset, results = edited_results(made, change)
    arguments = ["--dataset", str(dataset), "--results", str(results), "--output", str(made.root / "out")]
    with pytest.raises(SystemExit):
        main(["davis", *arguments])
    assert "video 1: 258 instances, a PNG holds 255" in capsys.readouterr().err
    assert not list(made.root.glob("out*"))
