"""`seqformer convert`: every format from and to files, and errors in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seqformer.cli.convert import main
from seqformer.data.toy import make_toy_dataset
from seqformer.evaluation import evaluate_ytvis
from seqformer.formats.results import write_results
from seqformer.formats.rle import encode_masks
from seqformer.formats.ytvis import read_ytvis

CVAT = """<annotations><meta><task><labels><label><name>car</name></label></labels></task></meta>
<track id="0" label="car"><box frame="0" outside="0" xtl="2" ytl="2" xbr="9" ybr="9"/></track>
</annotations>"""


@pytest.fixture
def toy(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A dataset of two videos, its frames, and results with every object, each with its own score."""
    dataset, _, frames = make_toy_dataset(tmp_path, num_train=2, num_val=0, length=3, instances=2)
    entries = [
        {"video_id": a.video.id, "category_id": a.category, "score": 0.8 - n / 10, "segmentations": a.masks}
        for n, a in enumerate(read_ytvis(dataset).annotations)
    ]
    write_results(tmp_path / "results.json", entries)
    return dataset, frames, tmp_path / "results.json"


def results_arguments(toy: tuple[Path, Path, Path], form: str, output: Path, *more: object) -> list[str]:
    arguments = ["results", form, "--dataset", toy[0], "--results", toy[2], "--output", output, *more]
    return [str(argument) for argument in arguments]


def dataset_arguments(toy: tuple[Path, Path, Path], form: str, output: Path, *more: object) -> list[str]:
    return ["dataset", form, *map(str, ("--frames", toy[1], "--output", output, *more))]


def test_davis_and_back(toy: tuple, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masks, back = tmp_path / "masks", tmp_path / "back.json"
    main(results_arguments(toy, "davis", masks))
    assert capsys.readouterr().out == f"{masks}: 4 instances\n"
    meta = ("--meta", masks / "meta.json")
    main(dataset_arguments(toy, "davis", back, "--annotations", masks / "Annotations", *meta))
    assert capsys.readouterr().out == f"{back}: 2 videos, 3 categories, 4 annotations\n"
    assert read_ytvis(back).names == read_ytvis(toy[0]).names
    void = ("--void", "1", "--overwrite")
    main(dataset_arguments(toy, "davis", back, "--annotations", masks / "Annotations", *void))
    assert capsys.readouterr().out == f"{back}: 2 videos, 1 categories, 2 annotations\n"


def test_mots_and_back(toy: tuple, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mots, back = tmp_path / "mots", tmp_path / "back.json"
    main(results_arguments(toy, "mots", mots, "--score-threshold", "0.55"))
    assert capsys.readouterr().out == f"{mots}: 3 instances\n"
    (everywhere,) = encode_masks(np.ones((1, 96, 128), bool))
    for path in mots.glob("*.txt"):
        path.write_text(path.read_text() + f"0 10000 10 96 128 {everywhere['counts']}\n")
    classes = ("--annotations", mots, "--classes", "1=circle", "2=square", "3=triangle")
    for regions, count in (("crowd", 3 + 2 * 3), ("drop", 3)):
        main(dataset_arguments(toy, "mots", back, *classes, "--ignore-regions", regions, "--overwrite"))
        assert capsys.readouterr().out == f"{back}: 2 videos, 3 categories, {count} annotations\n"


ALL = ("coco", "cvat", "davis", "label-studio", "labelme", "mots", "yolo")


@pytest.mark.parametrize("kind", ["results", "annotations"])
@pytest.mark.parametrize("form", ALL)
def test_every_format_and_back(
    toy: tuple, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str, kind: str
) -> None:
    """meta.json and config.xml are found next to the annotations."""
    out, back, scores = (tmp_path / name for name in ("out", "back.json", "scores.json"))
    if kind == "results":
        main(results_arguments(toy, form, out, "--score-threshold", "0"))
    else:
        main(["annotations", form, "--dataset", str(toy[0]), "--output", str(out)])
    assert capsys.readouterr().out == f"{out}: 4 instances\n"
    sources = {
        "cvat": sorted(out.glob("*.xml")),
        "davis": [out / "Annotations", "--meta", out / "meta.json"],
        "label-studio": [out / "tasks.json"],
    }
    source = ("--annotations", *sources.get(form, [out]))
    main(dataset_arguments(toy, form, back, *source, "--results", scores))
    count = 12 if form == "yolo" else 4
    assert capsys.readouterr().out == f"{back}: 2 videos, 3 categories, {count} annotations\n"
    original, converted = read_ytvis(toy[0]), read_ytvis(back)
    assert list(converted.names.items()) == list(original.names.items())
    assert {id_: v.names for id_, v in converted.videos.items()} == {
        id_: v.names for id_, v in original.videos.items()
    }
    if form != "yolo":
        assert {a.id for a in converted.annotations} == {a.id for a in original.annotations}
        found = sorted(entry["score"] for entry in json.loads(scores.read_text()))
        expected = [0.8 - n / 10 for n in (3, 2, 1, 0)] if kind == "results" else [1.0] * 4
        assert found == expected
        assert evaluate_ytvis(toy[0], scores)["AP"] == pytest.approx(100)


def test_options_of_formats(toy: tuple, tmp_path: Path) -> None:
    def convert(form: str, *more: object) -> Path:
        output = tmp_path / form
        main(["annotations", form, "--dataset", str(toy[0]), "--output", str(output), *map(str, more)])
        return output

    linked = convert("yolo", "--frames", toy[1]) / "images/train_001/00000.jpg"
    assert linked.samefile(toy[1] / "train_001/00000.jpg")
    content = json.loads(
        (convert("labelme", "--frames", toy[1], "--shapes", "polygon") / "train_001/00000.json").read_text()
    )
    assert (tmp_path / "labelme/train_001" / content["imagePath"]).samefile(linked)
    assert {shape["shape_type"] for shape in content["shapes"]} == {"polygon"}
    tasks = json.loads((convert("label-studio", "--image-prefix", "s3://videos/") / "tasks.json").read_text())
    assert tasks[0]["data"]["image"] == "s3://videos/train_001/00000.jpg"


def test_predictions_of_a_yolo_tracker(toy: tuple, tmp_path: Path) -> None:
    main(["annotations", "yolo", "--dataset", str(toy[0]), "--output", str(tmp_path / "yolo")])
    for path in (tmp_path / "yolo/labels").rglob("*.txt"):
        lines = path.read_text().splitlines()
        path.write_text("".join(f"{line} 0.5 {number}\n" for number, line in enumerate(lines, start=1)))
    source = ("--annotations", tmp_path / "yolo", "--confidences", "--track-ids")
    results = tmp_path / "scores.json"
    main(dataset_arguments(toy, "yolo", tmp_path / "back.json", *source, "--results", results))
    assert [entry["score"] for entry in json.loads(results.read_text())] == [0.5] * 4
    assert evaluate_ytvis(toy[0], results)["AP"] == pytest.approx(100)


def test_cvat(toy: tuple, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task, output = tmp_path / "train_001.xml", tmp_path / "task.json"
    task.write_text(CVAT)
    arguments = ["dataset", "cvat", "--annotations", str(task), "--output", str(output)]
    arguments += ["--frames", str(toy[1] / "train_001")]
    with pytest.raises(SystemExit):
        main(arguments)
    assert "track 0, frame 0: a box is not a mask" in (line := capsys.readouterr().err)
    assert line.endswith("draw a polygon or a mask, or set --boxes fill\n")
    main([*arguments, "--boxes", "fill"])
    assert capsys.readouterr().out == f"{output}: 1 videos, 1 categories, 1 annotations\n"


def test_frames(toy: tuple, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "new.json"
    main(dataset_arguments(toy, "frames", output, "--categories", "person", "car"))
    assert capsys.readouterr().out == f"{output}: 2 videos, 2 categories\n"
    assert "annotations" not in json.loads(output.read_text())


def test_bad_input_is_one_line_and_leaves_nothing(
    toy: tuple, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, dataset = tmp_path / "out", ("--dataset", str(toy[0]))
    no_annotations, no_tasks = tmp_path / "no_annotations.json", tmp_path / "no_tasks.json"
    content = json.loads(toy[0].read_text())
    del content["annotations"]
    no_annotations.write_text(json.dumps(content))
    no_tasks.write_text("[]")
    (tmp_path / "colour" / "train_001").mkdir(parents=True)
    Image.fromarray(np.zeros((96, 128, 3), np.uint8)).save(tmp_path / "colour" / "train_001" / "00000.png")
    for arguments, message in (
        (results_arguments(toy, "davis", toy[1]), "exists: remove it"),
        (
            ["annotations", "cvat", "--dataset", str(no_annotations), "--output", str(output)],
            "no 'annotations'",
        ),
        (["annotations", "yolo", *dataset, "--output", str(output), "--frames", "/none"], "no frame '/none"),
        *(
            (dataset_arguments(toy, form, output, "--annotations", "/none"), "'/none")
            for form in (*ALL, "cvat")
        ),
        (dataset_arguments(toy, "labelme", output, "--annotations", toy[1], "--meta", "/none"), "'/none'"),
        (
            dataset_arguments(toy, "label-studio", output, "--annotations", no_tasks, "--config", "/none"),
            "no file '/none'",
        ),
        (
            results_arguments(toy, "davis", output, "--score-threshold", "2"),
            "error: --score-threshold must be",
        ),
        (results_arguments(toy, "mots", output, "--results", "/none.json"), "no file '/none.json'"),
        (dataset_arguments(toy, "davis", output, "--annotations", "/none"), "'/none'"),
        (["checkpoint", "seqformer", "/none.pth", str(output)], "'/none.pth' not found"),
        (dataset_arguments(toy, "davis", output, "--annotations", tmp_path / "colour"), "is in colour"),
        (dataset_arguments(toy, "frames", output, "--categories", "a", "--frames", "/none"), "no folder"),
    ):
        with pytest.raises(SystemExit) as done:
            main(arguments)
        errors = capsys.readouterr().err
        assert done.value.code == 2
        assert errors.startswith("error: ") and message in errors and errors.count("\n") == 1
        assert not list(tmp_path.glob("out*"))
    assert sorted(path.name for path in toy[1].iterdir()) == ["train_001", "train_002"]


def test_existing_files_are_replaced_only_with_overwrite(
    toy: tuple, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, frames, results = toy
    mine, other = tmp_path / "mine.json", tmp_path / "other.json"
    weights = tmp_path / "weights.pth"
    torch.save({"a": torch.zeros(1)}, weights)
    first = ["dataset", "frames", "--frames", frames, "--categories", "car", "--output", mine]
    commands = [first, results_arguments(toy, "coco", mine), ["checkpoint", "seqformer", weights, weights]]
    back = ["dataset", "coco", "--annotations", other, "--frames", frames, "--output", tmp_path / "new.json"]
    main(results_arguments(toy, "coco", other))
    for command in [*commands, [*back, "--results", mine]]:
        mine.write_text("precious")
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in command])
        assert end.value.code == 2
        assert capsys.readouterr().err.endswith(
            "exists: choose another name, or give --overwrite to replace it\n"
        )
        assert mine.read_text() == "precious"
    assert not (tmp_path / "new.json").exists()
    for command in [*commands[:2], [*back, "--results", mine]]:
        main([*(str(argument) for argument in command), "--overwrite"])
        assert isinstance(json.loads(mine.read_text()), dict | list)


def test_a_class_is_a_number_and_a_name(toy: tuple, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(dataset_arguments(toy, "mots", Path("out"), "--annotations", "a", "--classes", "person"))
    assert "'person' is not ID=NAME" in capsys.readouterr().err


def test_entry_points(toy: tuple, repository: Path) -> None:
    """The files in tools/ take the same arguments, without "dataset" and "results"."""
    for kind, arguments in (
        ("results", results_arguments(toy, "coco", toy[2].with_name("frames.json"))),
        ("dataset", dataset_arguments(toy, "frames", toy[2].with_name("new.json"), "--categories", "a")),
    ):
        command = [sys.executable, str(repository / "tools" / f"convert_{kind}.py"), *arguments[1:]]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(arguments[-1 if kind == "results" else 5])
