"""tools/visualize_data.py, from the command line to its files."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from seqformer.cli.visualize_data import main
from seqformer.data.toy import make_toy_dataset

CONFIG = Path(__file__).parents[2] / "configs" / "toy" / "seqformer_toy.yaml"


def test_the_command_draws_clips_of_a_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, _, frames = make_toy_dataset(tmp_path / "toy", num_train=2, num_val=1, length=4, size=(48, 64))
    output = tmp_path / "clips"
    arguments = ["--config-file", str(CONFIG), "--output", str(output), "--count", "3"]
    options = ["DATASETS.TRAIN", f"('ytvis:{train}:{frames}',)", "INPUT.MIN_SIZE_TRAIN", "(48,)"]
    main([*arguments, *options])
    written = sorted(output.glob("*.png"))
    assert [path.name[:4] for path in written] == ["000_", "001_", "002_"]
    assert capsys.readouterr().out.splitlines() == [str(path) for path in written]
    assert {path.stem[4:] for path in written} <= {"video1", "video2"}
    assert all(Image.open(path).size == (3 * 64 + 2 * 4, 48) for path in written)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["DATASETS.TRAIN", "('nothing',)"], "no dataset 'nothing'"),
        (["DATASETS.TRAIN", "()"], "DATASETS.TRAIN is empty"),
        (["INPUT.NOTHING", "1"], "NOTHING"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--config-file", str(CONFIG), "--output", str(tmp_path), *arguments])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and message in said and said.count("\n") == 1


def test_output_that_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, _, frames = make_toy_dataset(tmp_path / "toy", num_train=1, num_val=1, length=4, size=(48, 64))
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stop:
        main(
            ["--config-file", str(CONFIG), "--output", str(tmp_path / "file")]
            + ["DATASETS.TRAIN", f"('ytvis:{train}:{frames}',)"]
        )
    assert stop.value.code == 2 and "cannot be written" in capsys.readouterr().err
