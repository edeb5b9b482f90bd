"""`seqformer figure`, from the command line to its files."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from networks import tiny_config
from PIL import Image
from safetensors.torch import save_file
from videos import encode, pictures

from seqformer import SeqFormer
from seqformer.cli import figure
from seqformer.errors import InputError
from seqformer.formats.rle import encode_masks
from seqformer.model_zoo import SHIPPED_MODEL
from seqformer.video import open_dataset_video
from seqformer.visualization.rows import read_rows

HEIGHT, WIDTH, T = 96, 128, 7
START = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options for a tiny model with random weights and class probabilities high enough to draw instances."""
    folder = tmp_path_factory.mktemp("model")
    cfg = tiny_config(NUM_CLASSES=2, NUM_OBJECT_QUERIES=20)
    cfg.INPUT.MIN_SIZE_TEST = 64
    (folder / "config.yaml").write_text(cfg.dump())
    torch.manual_seed(0)
    network = SeqFormer(cfg)
    for head in network.network.detr.class_embed:
        torch.nn.init.constant_(head.bias, 0.5)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    save_file(state, folder / "model.safetensors", {"thing_classes": json.dumps(["cat", "dog"])})
    return ["--config-file", str(folder / "config.yaml"), "--weights", str(folder / "model.safetensors")]


@pytest.fixture
def video(tmp_path: Path) -> str:
    return str(encode(tmp_path / "street.mp4", T))


def moving(left: int, length: int = T, size: tuple[int, int] = (HEIGHT, WIDTH)) -> list:
    masks = np.zeros((length, *size), dtype=bool)
    for t in range(length):
        masks[t, 30:70, left + 3 * t : left + 3 * t + 25] = True
    return encode_masks(masks)


def entry(masks: list, score: float = 0.9, video_id: int = 1) -> dict:
    return {"video_id": video_id, "category_id": 1, "score": score, "segmentations": masks}


@pytest.fixture
def results(tmp_path: Path) -> Callable[..., str]:
    """Writes a results.json and returns its path."""

    def write(name: str, *entries: dict) -> str:
        (tmp_path / name).write_text(json.dumps(entries))
        return str(tmp_path / name)

    return write


@pytest.fixture
def dataset(tmp_path: Path) -> list[str]:
    """Options for a video of an annotated dataset, whose frames are not sorted by name."""
    names = [f"clip/frame{t}.png" for t in reversed(range(T))]
    pictures(tmp_path / "clip", T)
    content = {
        "categories": [{"id": 1, "name": "person"}],
        "videos": [
            {"id": id_, "height": HEIGHT, "width": WIDTH, "file_names": names, "length": T} for id_ in (1, 2)
        ],
        "annotations": [
            {"id": 1, "video_id": 1, "category_id": 1, "iscrowd": 0, "segmentations": moving(20)},
        ],
    }
    (tmp_path / "val.json").write_text(json.dumps(content))
    return ["--dataset", str(tmp_path / "val.json"), "--images", str(tmp_path), "--video-id", "1"]


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


@pytest.mark.parametrize("format", START)
def test_sampling_points(tmp_path: Path, video: str, model: list[str], capsys, format: str) -> None:
    output = tmp_path / "new" / f"points.{format}"
    chosen = ["--frames", "0:6:2", "--layers", "1,3", "--instances", "top2", "--dpi", "50", "--width", "6"]
    figure.main(["sampling-points", "--input", video, "--output", str(output), *chosen, *model])
    assert output.read_bytes().startswith(START[format])
    assert [path.name for path in output.parent.iterdir()] == [output.name]
    assert capsys.readouterr().out == f"{output}\n"
    if format == "png":
        width, height = size(output)
        assert width == 300 and 2 * 72 < height < 2 * 72 + 50, "two rows of three frames"


def test_more_layers_are_more_rows(tmp_path: Path, video: str, model: list[str]) -> None:
    heights = []
    for layers in ("last", "all"):
        output = tmp_path / f"{layers}.png"
        arguments = ["--count", "3", "--layers", layers, "--level", "2", "--dpi", "50"]
        figure.main(["sampling-points", "--input", video, "--output", str(output), *arguments, *model])
        heights.append(size(output)[1])
    assert heights[1] > 2 * heights[0]


def test_temporal_weights(tmp_path: Path, video: str, model: list[str]) -> None:
    output = tmp_path / "weights.png"
    chosen = ["--instances", "0,4", "--layers", "all", "--count", "5", "--dpi", "50"]
    figure.main(["temporal-weights", "--input", video, "--output", str(output), *chosen, *model])
    assert size(output)[0] == 500


def test_instances_of_a_model(tmp_path: Path, video: str, model: list[str]) -> None:
    """Without --results the model runs; a lower threshold draws more instances."""
    drawn = []
    for threshold in ("0", "1"):
        output = tmp_path / f"{threshold}.png"
        arguments = ["--input", video, "--output", str(output), "--confidence-threshold", threshold]
        figure.main(["instances", *arguments, "--dpi", "50", *model])
        with Image.open(output) as image:
            drawn.append(len(image.convert("RGB").getcolors(1 << 24)))
    assert drawn[0] > 1.5 * drawn[1]


def test_instances_with_ground_truth(tmp_path: Path, dataset: list[str], results) -> None:
    """The dataset adds a second row, and both rows have the frames in the dataset's order."""
    found = results("a.json", entry(moving(22)))
    outputs = tmp_path / "alone.png", tmp_path / "both.png"
    source = ["--input", str(tmp_path / "clip")]
    shared = ["--results", found, "--dpi", "50", "--count", "3"]
    figure.main(["instances", *source, *shared, "--output", str(outputs[0])])
    figure.main(["instances", *dataset, *shared, "--output", str(outputs[1])])
    assert size(outputs[1])[1] > 1.7 * size(outputs[0])[1]


def test_compare(tmp_path: Path, video: str, results) -> None:
    ours, other = results("a.json", entry(moving(20))), results("b.json", entry(moving(60)))
    output = tmp_path / "compare.svg"
    arguments = ["--input", video, "--results", f"ours={ours}", f"other={other}"]
    figure.main(["compare", *arguments, "--output", str(output), "--count", "2", "--dpi", "50"])
    assert output.read_bytes().startswith(START["svg"])

    opened = open_dataset_video(video)
    rows = read_rows(figure.parse_results(arguments[3:]), opened.video, opened.dataset, 0.4)
    assert [row.name for row in rows] == ["ours", "other"]
    assert [row.instances[0].instance_id for row in rows] == [0, 1]


def test_compare_as_a_video(tmp_path: Path, video: str, results) -> None:
    found = results("a.json", entry(moving(20)))
    output = tmp_path / "compare.mp4"
    arguments = ["--input", video, "--results", f"ours={found}", f"other={found}"]
    figure.main(["compare", *arguments, "--output", str(output)])
    with av.open(str(output)) as container:
        stream = container.streams.video[0]
        assert (stream.frames, stream.average_rate) == (T, 10)
        assert stream.width >= 2 * WIDTH and stream.height > HEIGHT


@pytest.mark.parametrize(
    ("text", "count", "wanted"),
    [
        (None, 3, [0, 4, 9]),
        (None, 30, list(range(10))),
        ("7,2,7", 6, [7, 2]),
        ("1, 4:10:3", 6, [1, 4, 7]),
        ("8:10", 6, [8, 9]),
    ],
)
def test_frame_numbers(text: str | None, count: int, wanted: list[int]) -> None:
    assert figure.parse_frames(text, count, 10) == wanted


def test_layers_and_instances() -> None:
    assert figure.parse_layers("all", 4) == [1, 2, 3, 4]
    assert figure.parse_layers("last", 4) == [4]
    assert figure.parse_layers("3,1,3", 4) == [3, 1]
    assert figure.parse_instances("top3", 10) == [0, 1, 2]
    assert figure.parse_instances("top3", 2) == [0, 1]
    assert figure.parse_instances("all", 3) == [0, 1, 2]
    for text in ("top0", "-1", "a", ""):
        with pytest.raises(InputError, match="--instances"):
            figure.parse_instances(text, 10)


def test_names_of_files(tmp_path: Path) -> None:
    def path(*arguments: str) -> tuple[str, str]:
        parser = argparse.ArgumentParser()
        figure.add_arguments(parser)
        found, kind = figure.figure_path(parser.parse_args(["instances", *arguments]))
        return str(found), kind

    assert path() == ("output/instances.png", "png")
    assert path("--format", "pdf") == ("output/instances.pdf", "pdf")
    assert path("--output", "a/b.SVG") == ("a/b.SVG", "svg")
    assert path("--output", "a/b", "--format", "svg") == ("a/b.svg", "svg")
    for wrong in (["--output", "a.gif"], ["--output", "a.png", "--format", "pdf"], ["--output", "a"]):
        with pytest.raises(InputError, match="png, pdf, svg"):
            path(*wrong)


def fails(capsys, tmp_path: Path, arguments: list[str]) -> str:
    """Runs a command that must exit with 2, print one line and leave no file; returns the line."""
    before = set(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as stop:
        figure.main(arguments)
    captured = capsys.readouterr()
    assert stop.value.code == 2
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1, captured.err
    assert captured.out == "" and set(tmp_path.rglob("*")) == before
    return captured.err


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("sampling-points", ["--layers", "4"], "no decoder layer 4: the model has 1 to 3"),
        ("sampling-points", ["--layers", "0"], "no decoder layer 0"),
        ("sampling-points", ["--layers", "first"], "--layers first"),
        ("sampling-points", ["--level", "5"], "no feature level 5: the model has 1 to 4"),
        ("sampling-points", ["--instances", "3,10"], "no instance 10: the model keeps 0 to 9"),
        ("temporal-weights", ["--layers", "4"], "no decoder layer 4"),
        ("temporal-weights", ["--instances", "best"], "--instances best"),
        ("temporal-weights", ["--frames", "3,7"], "no frame 7: the video has frames 0 to 6"),
        ("temporal-weights", ["--frames", "1-3"], "--frames 1-3: write numbers and ranges"),
        ("temporal-weights", ["--frames", "5:5"], "there are no frames in this range"),
        ("temporal-weights", ["--count", "0"], "--count 0"),
        ("temporal-weights", ["--dpi", "9000"], "--dpi 9000"),
        ("instances", ["--width", "0"], "--width 0"),
        ("instances", ["--confidence-threshold", "2"], "--confidence-threshold 2"),
    ],
)
def test_invalid_choices(
    tmp_path: Path, video: str, model: list[str], capsys, command: str, arguments: list[str], message: str
) -> None:
    output = ["--output", str(tmp_path / "out.png")]
    assert message in fails(capsys, tmp_path, [command, "--input", video, *output, *arguments, *model])


def test_results_that_do_not_match(tmp_path: Path, video: str, dataset: list[str], results, capsys) -> None:
    good = results("good.json", entry(moving(20)))
    (tmp_path / "broken.json").write_text("[{")
    cases = {
        "is not JSON": str(tmp_path / "broken.json"),
        "no file": str(tmp_path / "none.json"),
        "no results for video 1; there are results for: 9": results("b.json", entry(moving(20), video_id=9)),
        "the mask's size is [48, 128], but the frame's is [96, 128]": results(
            "c.json", entry(moving(20, size=(48, WIDTH)))
        ),
        "has 3 entries, but the video has 7 frames": results("d.json", entry(moving(20, length=3))),
    }
    for source in (["--input", video], dataset):
        for message, path in cases.items():
            for output in ("out.png", "out.mp4"):
                arguments = ["--output", str(tmp_path / output), "--results", f"a={good}", f"b={path}"]
                assert message in fails(capsys, tmp_path, ["compare", *source, *arguments])


def test_sources_that_do_not_match(tmp_path: Path, video: str, dataset: list[str], results, capsys) -> None:
    good = ["--results", f"a={results('good.json', entry(moving(20)))}", "--output", str(tmp_path / "o.png")]
    short = str(encode(tmp_path / "short.mp4", 3))
    for arguments, message in (
        ([], "no frames: give --input"),
        (dataset[:4], "give --video-id"),
        ([*dataset[:4], "--video-id", "5"], "there is no video 5 in"),
        (["--input", short, *dataset], "there are 3 of 128x96 pixels, not 7 of 128x96"),
        ([*dataset[:2], "--images", str(tmp_path / "none"), *dataset[4:]], "cannot be read"),
        (["--input", str(tmp_path / "none.mp4")], "no file"),
    ):
        assert message in fails(capsys, tmp_path, ["compare", *arguments, *good])
    for wrong in (["a"], ["=x"], ["a=x", "a=y"]):
        arguments = ["--input", video, "--results", *wrong]
        assert "error: --results" in fails(capsys, tmp_path, ["compare", *arguments])


def test_existing_files_are_replaced_only_with_overwrite(
    tmp_path: Path, video: str, results, capsys, monkeypatch
) -> None:
    path = results("a.json", entry(moving(20)))
    for name, command in (
        ("strip.png", ["instances", "--results", path]),
        ("compare.png", ["compare", "--results", f"ours={path}"]),
        ("compare.mp4", ["compare", "--results", f"ours={path}"]),
    ):
        output = tmp_path / name
        output.write_text("precious")
        arguments = [*command, "--input", video, "--output", str(output), "--dpi", "30"]
        with pytest.raises(SystemExit) as end:
            figure.main(arguments)
        assert end.value.code == 2
        assert f"'{output}' exists: choose another name, or give --overwrite" in capsys.readouterr().err
        assert output.read_text() == "precious"
        figure.main([*arguments, "--overwrite"])
        assert len(output.read_bytes()) > 1000
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # the default name is not somebody else's
        figure.main(["instances", "--results", path, "--input", video, "--dpi", "30"])


def test_a_video_does_not_replace_its_input(video: str, results, capsys, tmp_path: Path) -> None:
    before = Path(video).read_bytes()
    arguments = ["--input", video, "--results", f"a={results('a.json', entry(moving(20)))}"]
    assert "is the input" in fails(
        capsys, tmp_path, ["compare", *arguments, "--output", video, "--overwrite"]
    )
    assert Path(video).read_bytes() == before


def test_as_a_command(tmp_path: Path, video: str, results, repository: Path) -> None:
    found = results("a.json", entry(moving(20)))
    command = [sys.executable, str(repository / "tools/figure.py"), "instances", "--input", video]
    output = tmp_path / "out.pdf"
    done = subprocess.run(
        [*command, "--results", found, "--output", str(output)], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", f"{output}\n")
    assert output.read_bytes().startswith(START["pdf"])


@pytest.mark.parametrize("name", ["instances", "sampling-points"])
def test_the_shipped_model_on_another_video_is_noted(video, monkeypatch, capsys, name) -> None:
    def make(cfg):
        raise InputError("stopped")

    monkeypatch.setattr(figure, "VideoPredictor", make)
    for options in ([], ["--model", SHIPPED_MODEL]):
        with pytest.raises(SystemExit):
            figure.main([name, "--input", video, *options])
        said = capsys.readouterr().err
        assert said.endswith("error: stopped\n")
        assert said.startswith("note: the shipped model knows only people") == (not options)
