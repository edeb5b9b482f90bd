"""Pictures of training clips: what is drawn where, and in which colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from networks import two_moving_squares
from PIL import Image

from seqformer.cli.visualize_data import main
from seqformer.data.toy import make_toy_dataset
from seqformer.visualization import instance_color
from seqformer.visualization.clips import draw_clip

CONFIG = Path(__file__).parents[2] / "configs" / "toy" / "seqformer_toy.yaml"
NAMES = ["light", "dark"]


def clip() -> dict:
    """160 pixels high, so that labels leave room; the dark square is gone in the last frame."""
    video = two_moving_squares(size=160)
    return video | {"image": [image.to(torch.uint8) for image in video["image"]]}


def test_instances_are_tinted_in_their_colours_in_every_frame() -> None:
    drawn = draw_clip(clip(), NAMES)
    assert drawn.shape == (160, 3 * 160 + 2 * 4, 3)
    for t in range(3):
        frame = drawn[:, t * 164 : t * 164 + 160]
        expected = np.rint(0.6 * 250 + 0.4 * np.array(instance_color(0)))
        np.testing.assert_array_equal(frame[22, 16 + 10 * t], expected)
        assert (frame[27, 4 + 10 * t] == instance_color(0)).all(), "the box's corner"
        if t < 2:
            assert (frame[51 + 6 * t, 57] == instance_color(1)).all()
    assert not (drawn[:, 328:] == instance_color(1)).all(-1).any(), "what is not visible is not drawn"


def test_channels_come_out_as_rgb() -> None:
    plain = clip()
    turned = plain | {"image": [image.flip(0) for image in plain["image"]]}
    np.testing.assert_array_equal(draw_clip(plain, NAMES), draw_clip(turned, NAMES, "BGR"))


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
