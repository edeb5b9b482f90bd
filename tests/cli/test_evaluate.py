"""The evaluate command: tables, JSON and CSV."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqformer.cli.main import main
from seqformer.evaluation import evaluate
from seqformer.formats.rle import encode_masks

TRACKING = ["HOTA", "DetA", "AssA", "MOTA", "IDSW", "IDF1", "IDP", "IDR"]


def tracklet(video: int, category: int, places: list[int | None], **values: Any) -> dict[str, Any]:
    """A block of 4x10 pixels in a 4x100 strip, at a given place in each frame."""
    masks = np.zeros((len(places), 4, 100), dtype=bool)
    for mask, place in zip(masks, places, strict=True):
        if place is not None:
            mask[:, place : place + 10] = True
    return {"video_id": video, "category_id": category, "segmentations": encode_masks(masks)} | values


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Two videos: one has an id that changes halfway, the other is perfect; one category is never used."""
    gt = {
        "videos": [
            {"id": n, "height": 4, "width": 100, "file_names": [f"{name}/{t}.jpg" for t in range(4)]}
            for n, name in ((1, "walk"), (2, "run"))
        ],
        "categories": [{"id": n, "name": name} for n, name in ((1, "cat"), (2, "dog"), (3, "eel"))],
        "annotations": [
            {"id": 1, "iscrowd": 0} | tracklet(1, 1, [0] * 4),
            {"id": 2, "iscrowd": 0} | tracklet(2, 2, [50] * 4),
        ],
    }
    results = [
        tracklet(1, 1, [0, 0, None, None], score=0.9),
        tracklet(1, 1, [None, None, 0, 0], score=0.2),
        tracklet(2, 2, [50] * 4, score=0.8),
    ]
    paths = tmp_path / "gt.json", tmp_path / "results.json"
    for path, content in zip(paths, (gt, results), strict=True):
        path.write_text(json.dumps(content))
    return list(map(str, paths))


def table(text: str, label: str) -> dict[str, dict[str, str]]:
    """The rows of the table whose first column has the given heading."""
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith(f"| {label}")]
    (header, _, *rows) = ([cell.strip() for cell in line.strip("|").split("|")] for line in blocks[0])
    return {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in rows}


def test_the_old_entry_point_prints_ap_and_id_switches(files: list[str]) -> None:
    command = [sys.executable, "-m", "seqformer.evaluation"]
    done = subprocess.run([*command, *files], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.splitlines()[2].split("|")[1].strip() == "55", "AP 10, at IoU 0.5 alone, and 100"
    assert table(done.stdout, "category")["eel"] == {"AP": "-"}
    assert done.stdout.splitlines()[-1] == "ID switches: 1; 2 of 2 instances covered by a result"
    gone = str(Path(files[1]).with_name("gone.json"))
    done = subprocess.run([*command, files[0], gone], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == f"error: no file '{gone}'"


@pytest.mark.parametrize("option", ["--score-threshold", "--id-switch-threshold"])
def test_results_with_low_scores_are_left_out(
    files: list[str], option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["evaluate", *files, option, "0.3"])
    assert capsys.readouterr().out.splitlines()[-1] == (
        "ID switches: 0; 2 of 2 instances covered by a result with a score of at least 0.3"
    )


def test_tables_of_categories_and_videos(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(["evaluate", *files, "--metrics", "all", "--per-video"])
    text = capsys.readouterr().out
    categories, videos = table(text, "category"), table(text, "video")
    assert list(categories) == ["cat", "dog", "eel", "class-averaged", "detection-averaged"]
    assert list(videos) == ["walk", "run"]
    assert list(categories["cat"]) == list(videos["run"]) == ["AP", *TRACKING]
    assert categories["cat"] == videos["walk"], "each video has one category"
    assert (categories["cat"]["HOTA"], categories["cat"]["IDSW"], videos["run"]["HOTA"]) == (
        "70.71",
        "1",
        "100.00",
    )
    assert (categories["eel"]["AP"], categories["eel"]["HOTA"]) == ("-", "0.00")
    assert [categories[f"{kind}-averaged"]["AssA"] for kind in ("class", "detection")] == ["50.00", "75.00"]
    assert "1 of 3 categories have neither ground truth nor results" in text


def test_chosen_metrics(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(["evaluate", *files, "--metrics", "Identity", "HOTA"])
    text = capsys.readouterr().out
    assert list(table(text, "category")["cat"]) == ["HOTA", "DetA", "AssA", "IDF1", "IDP", "IDR"]
    assert "AP50" not in text and not any(line.startswith("| video") for line in text.splitlines())


def test_json_and_csv_have_all_figures(files: list[str], tmp_path: Path) -> None:
    outputs = tmp_path / "new" / "metrics.json", tmp_path / "metrics.csv"
    options = ["--metrics", "all", "--per-video", "--json", str(outputs[0]), "--csv", str(outputs[1])]
    main(["evaluate", *files, *options])
    evaluation = evaluate(*files, per_video=True)
    content = json.loads(outputs[0].read_text())
    assert content["id_switches"] == {"switches": 1, "covered": 2, "instances": 2}
    assert [(c["id"], c["name"]) for c in content["categories"]] == [(1, "cat"), (2, "dog"), (3, "eel")]
    assert [(v["id"], v["name"]) for v in content["videos"]] == [(1, "walk"), (2, "run")]
    assert content["categories"][2]["AP"] is None and content["categories"][0]["IDSW"] == 1
    assert content["detection_averaged"] == pytest.approx(evaluation.detection_averaged)

    rows = list(csv.DictReader(outputs[1].open()))
    scopes = ["class-averaged", "detection-averaged", *["category"] * 3, *["video"] * 2]
    assert [row["scope"] for row in rows] == scopes
    same = [
        content["class_averaged"],
        content["detection_averaged"],
        *content["categories"],
        *content["videos"],
    ]
    for row, expected in zip(rows, same, strict=True):
        for name in (name for name in row if name != "scope"):
            value = expected.get(name)
            assert row[name] == ("" if value is None else str(value)), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--score-threshold", "1.5"], "the score threshold must be from 0 to 1, not 1.5"),
        (["--json", "RESULTS"], "--json and --csv must name new files"),
        (["--json", "a", "--csv", "a"], "--json and --csv must name new files"),
        (["--csv", "/dev/null/metrics.csv"], "cannot write '/dev/null/metrics.csv'"),
        (["--metrics", "HOAT"], "invalid choice: 'HOAT'"),
    ],
)
def test_bad_options_end_with_one_line(
    files: list[str], options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Path(files[1]).read_bytes()
    with pytest.raises(SystemExit) as exit_:
        main(["evaluate", *files, *(files[1] if word == "RESULTS" else word for word in options)])
    assert exit_.value.code == 2 and message in capsys.readouterr().err.splitlines()[-1]
    assert Path(files[1]).read_bytes() == before
