"""`seqformer check`: a valid dataset passes, and all problems of an invalid one are listed in one run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from seqformer.cli.check import main
from seqformer.data.toy import make_toy_dataset
from seqformer.formats.check import check_dataset
from seqformer.formats.files import read_json

ALL_NULL = [None] * 3


@pytest.fixture
def toy(tmp_path: Path) -> tuple[Path, Path]:
    """A dataset of two videos with three frames each, 64x48 pixels: JSON and folder of frames."""
    json_file, _, frames = make_toy_dataset(tmp_path, num_train=2, num_val=0, length=3, size=(48, 64))
    return json_file, frames


def change(path: Path, edit: Any) -> None:
    data = read_json(path)
    edit(data)
    path.write_text(json.dumps(data))


def run(*arguments: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str], str]:
    code = 0
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        code = end.code
    output = capsys.readouterr()
    return code, output.out.splitlines(), output.err


@pytest.mark.parametrize("options", [[], ["--decode"]])
def test_valid_dataset(
    toy: tuple[Path, Path], capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    code, lines, _ = run(*toy, *options, capsys=capsys)
    assert code == 0
    assert lines == ["no problems; usable: 2 videos, 6 frames, 6 annotations, 3 categories"]


def test_frames_outside_the_folder_have_to_be_allowed(
    toy: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    json_file, frames = toy

    def lead_outside(data: Any) -> None:
        first, second = data["videos"]
        first["file_names"] = [str(frames / name) for name in first["file_names"]]
        second["file_names"] = [f"../{frames.name}/{name}" for name in second["file_names"]]

    change(json_file, lead_outside)
    code, lines, _ = run(json_file, frames, capsys=capsys)
    assert code == 1 and sum("is not in the folder of frames" in line for line in lines) == 2
    code, lines, _ = run(json_file, frames, "--allow-outside", capsys=capsys)
    assert (code, lines) == (0, ["no problems; usable: 2 videos, 6 frames, 6 annotations, 3 categories"])


def test_all_problems_at_once(toy: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    json_file, frames = toy
    names = [name for video in read_json(json_file)["videos"] for name in video["file_names"]]
    (frames / names[0]).unlink()
    Image.new("RGB", (60, 48)).save(frames / names[1])
    (frames / names[2]).write_bytes(b"no picture")
    whole = (frames / names[3]).read_bytes()
    (frames / names[3]).write_bytes(whole[: len(whole) // 2])

    def edit(data: dict[str, Any]) -> None:
        videos, (a, b, c, d, e, f) = data["videos"], data["annotations"]
        videos[1]["file_names"][2] = videos[1]["file_names"][1]
        videos.append(videos[0] | {"file_names": []})
        videos.append(dict(videos[0]))
        videos.append(videos[0] | {"id": 9, "length": 4})
        data["categories"].append({"id": 1, "name": "again"})
        a["category_id"] = 7
        a["segmentations"] = [{"size": [48, 63], "counts": [48 * 63]}, None, None]
        b["segmentations"] = [{"size": [48, 64], "counts": "0"}, {"size": [48, 64], "counts": [5]}, None]
        c["segmentations"] = [None]
        d["id"] = c["id"]
        e["segmentations"] = ALL_NULL
        e["bboxes"] = ["box", None, None]
        e["areas"] = [None, None]
        f["segmentations"] = [{"size": [48, 64], "counts": [0, 48 * 64]}, None, None]
        f["bboxes"] = [[0, 0, 10, 10], None, None]
        data["annotations"] += [f | {"id": 20, "video_id": 30}]

    change(json_file, edit)
    code, lines, _ = run(json_file, frames, "--decode", capsys=capsys)
    assert code == 1
    expected = [
        ": two categories have the id 1",
        f": video 1: 1 of 3 frames are missing: '{frames / names[0]}'",
        ": video 1: 'file_names' must be a list of at least one name",
        ": two videos have the id 1",
        ": video 9: 'length' is 4, but there are 3 file_names",
        ": video 1, annotation 1: category_id 7 is not one of the categories 1 to 3",
        ": video 1, annotation 1, frame 0: the mask's size is [48, 63], but the frame's is [48, 64]",
        ": video 1, annotation 2, frame 0: malformed RLE: the runs cover 0 pixels, not 48 x 64 = 3072",
        ": video 1, annotation 2, frame 1: malformed RLE: the runs cover 5 pixels, not 48 x 64 = 3072",
        ": video 1, annotation 3: 'segmentations' has 1 entries, but the video has 3 frames",
        ": video 2, annotation 3: ids must be integers, each used once",
        ": video 2, annotation 5, frame 0: a box must be x, y, width and height in pixels, not 'box'",
        ": video 2, annotation 5: 'areas' has 2 entries, but the video has 3 frames",
        ": video 30, annotation 20: there is no video with that id",
        f": video 1, frame 1: '{frames / names[1]}' is 60x48 pixels, but the annotations are for 64x48",
        f": video 1, frame 2: '{frames / names[2]}' cannot be read: cannot identify image file",
        f": video 2, frame 0: '{frames / names[3]}' cannot be read: image file is truncated",
        f": video 2, frame 2: '{names[4]}' is also frame 1",
        ": video 1, annotation 2: no frame has a mask",
        ": video 2, annotation 5: no frame has a mask",
        ": video 2, annotation 6, frame 0: the box [0, 0, 10, 10] does not match the box of the mask, "
        "[0.0, 0.0, 64.0, 48.0] (x, y, width, height)",
    ]
    assert len(lines) == len(expected) + 1
    for line, start in zip(lines, expected, strict=False):
        assert line.startswith(str(json_file) + start)
    assert lines[-1] == "21 problems; usable: 0 videos, 0 frames, 0 annotations, 3 categories"


def test_videos_without_frames_are_not_usable(
    toy: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    json_file, frames = toy
    names = [video["file_names"] for video in read_json(json_file)["videos"]]
    (frames / names[0][1]).unlink()
    code, lines, _ = run(*toy, capsys=capsys)
    assert (code, lines[-1]) == (1, "1 problem; usable: 1 videos, 3 frames, 3 annotations, 3 categories")
    for name in names[0] + names[1]:
        (frames / name).unlink(missing_ok=True)
    code, lines, _ = run(*toy, capsys=capsys)
    assert (code, lines[-1]) == (1, "2 problems; usable: 0 videos, 0 frames, 0 annotations, 3 categories")


def test_truncated_frames_need_decoding(toy: tuple[Path, Path]) -> None:
    frame = next(toy[1].rglob("*.jpg"))
    frame.write_bytes(frame.read_bytes()[:-200])
    assert check_dataset(*toy)[1] == []
    (problem,) = check_dataset(*toy, decode=True)[1]
    assert str(frame) in problem and "truncated" in problem


def test_exif_orientation_is_applied(toy: tuple[Path, Path]) -> None:
    frame = next(toy[1].rglob("*.jpg"))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (48, 64)).save(frame, exif=exif)
    assert check_dataset(*toy)[1] == []


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no file"), ('{"videos": [', "is not JSON"), ("[]", "not an object with 'videos'")],
)
def test_nothing_to_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, message: str
) -> None:
    path = tmp_path / "data.json"
    if content is not None:
        path.write_text(content)
    code, lines, errors = run(path, tmp_path, capsys=capsys)
    assert (code, lines) == (2, [])
    assert errors.startswith("error: ") and str(path) in errors and message in errors
    assert errors.count("\n") == 1


def test_command(toy: tuple[Path, Path], repository: Path) -> None:
    command = [sys.executable, str(repository / "tools" / "check_dataset.py")]
    done = subprocess.run([*command, *map(str, toy)], capture_output=True, text=True)
    assert (done.returncode, done.stdout[:11]) == (0, "no problems")
    done = subprocess.run([*command, str(toy[0]), "/nowhere"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == "error: no folder '/nowhere'"


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("file_names", ["a\0.jpg"] * 3),
        ("file_names", ["\0/a.jpg"] * 3),
        ("file_names", ["\ud800.jpg"] * 3),
        ("file_names", ["\ud800/a.jpg"] * 3),
        ("file_names", ["a" * 5000] * 3),
        ("file_names", ["a" * 5000 + "/a.jpg"] * 3),
        ("file_names", ["a\n\x1b[31m.jpg"] * 3),
        ("file_names", ["/etc/hostname"] * 3),
        ("file_names", ["../../a.jpg"] * 3),
        ("file_names", [".."] * 3),
        ("height", 10**400),
        ("width", nested(900)),
        ("width", {"a": [1]}),
        ("width", float("nan")),
        ("width", float("inf")),
        ("id", [1]),
        ("id", {}),
        ("id", 1.5),
        ("id", nested(900)),
        ("id", "a\n\x1b[31m" + "b" * 5000),
        ("length", nested(900)),
    ],
)
def test_a_strange_value_hides_no_other_problem(
    toy: tuple[Path, Path], capsys: pytest.CaptureFixture[str], key: str, value: Any
) -> None:
    def edit(data: dict[str, Any]) -> None:
        data["videos"][0][key] = value
        data["annotations"][5]["category_id"] = 7

    change(toy[0], edit)
    code, lines, errors = run(*toy, capsys=capsys)
    assert (code, errors) == (1, "")
    assert len(lines) >= 3 and all(line.isprintable() and len(line) < 5000 for line in lines)
    assert any("annotation 6: category_id 7 is not one of the categories" in line for line in lines)
    assert any("video " in line and "annotation 6" not in line for line in lines[:-1])
    assert lines[-1].endswith("problems; usable: 1 videos, 3 frames, 2 annotations, 3 categories")


@pytest.mark.parametrize(
    "key", ["id", "video_id", "category_id", "iscrowd", "segmentations", "bboxes", "areas"]
)
@pytest.mark.parametrize(
    "value", [nested(900), [nested(900)] * 3, 10**400, {"a": 1}, float("nan"), "a\n" * 5000]
)
def test_a_strange_value_of_an_annotation_hides_no_other_problem(
    toy: tuple[Path, Path], capsys: pytest.CaptureFixture[str], key: str, value: Any
) -> None:
    def edit(data: dict[str, Any]) -> None:
        data["annotations"][0][key] = value
        data["annotations"][5]["category_id"] = 7

    change(toy[0], edit)
    code, lines, errors = run(*toy, capsys=capsys)
    assert (code, errors) == (1, "")
    assert all(line.isprintable() and len(line) < 5000 for line in lines)
    assert any("annotation 6: category_id 7 is not one of the categories" in line for line in lines)
    assert any(line.startswith(f"{toy[0]}: video") and "annotation 6" not in line for line in lines)


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"videos": ' + "9" * 5000 + "}", '{"a": "\0"}', "\ufeff{}", ""]
)
def test_what_is_not_json_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    path = tmp_path / "data.json"
    path.write_text(content)
    code, lines, errors = run(path, tmp_path, capsys=capsys)
    assert (code, lines) == (2, [])
    assert errors.startswith("error: ") and errors.count("\n") == 1
