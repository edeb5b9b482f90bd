"""The public API: load a model by name, predict a video by path, draw and save the results."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from videos import encode

from seqformer import VideoPredictor, model_zoo
from seqformer.errors import InputError
from seqformer.formats.rle import encode_masks
from seqformer.inference import VideoPrediction
from seqformer.structures import Tracklet
from seqformer.video import VideoReader

HEIGHT, WIDTH, T = 48, 64, 3
SMALL = ["INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TEST", "96"]


@pytest.fixture(scope="module")
def predictor() -> VideoPredictor:
    return VideoPredictor.from_pretrained(opts=SMALL)


@pytest.fixture
def result() -> VideoPrediction:
    masks = np.zeros((T, HEIGHT, WIDTH), dtype=bool)
    masks[:2, 10:20, 30:50] = True
    tracklet = Tracklet(0, 0, 0.9, encode_masks(masks), "cat", (HEIGHT, WIDTH))
    return VideoPrediction(HEIGHT, WIDTH, T, [tracklet])


def test_the_shipped_model_by_name_and_by_file(predictor: VideoPredictor) -> None:
    assert predictor.class_names == ["person"]
    weights = model_zoo.get_weights_file(model_zoo.SHIPPED_MODEL)
    torch.manual_seed(1)  # for weights that the file does not hold: other ones than in the fixture
    for model in (model_zoo.SHIPPED_MODEL, weights):
        other = VideoPredictor.from_pretrained(model, opts=SMALL)
        state = other.model.state_dict()
        differ = [n for n, tensor in predictor.model.state_dict().items() if not tensor.equal(state[n])]
        # The only tensor that weights files do not have, so it may be initialised differently.
        assert set(differ) <= {"detr.detr.training_query_embed.weight"}


def test_the_shipped_model_by_default_is_noted_once(
    tmp_path: Path, repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def noted() -> list[logging.LogRecord]:
        return [record for record in caplog.records if record.name == "seqformer.inference.predictor"]

    frames = [np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)] * 2
    chosen = VideoPredictor.from_pretrained(model_zoo.SHIPPED_MODEL, opts=SMALL)
    chosen(frames)
    assert not noted()
    predictor = VideoPredictor.from_pretrained(opts=SMALL)
    predictor._predict = lambda *_: VideoPrediction(HEIGHT, WIDTH, 1, [])
    predictor(repository / "demo/assets/street.mp4")
    assert not noted()
    for _ in range(2):
        predictor(encode(tmp_path / "video.mp4", T, height=HEIGHT, width=WIDTH))
    (record,) = noted()
    assert record.levelname == "WARNING"
    assert record.message.startswith("the shipped model knows only people seen by one street camera; expect")
    assert record.message.endswith(": VideoPredictor.from_pretrained('released/seqformer_R50_joint')")
    VideoPredictor.from_pretrained(opts=SMALL).stream()
    assert len(noted()) == 2


def test_path_and_frames_give_the_same_result(predictor: VideoPredictor, tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    encode(path, T, height=HEIGHT, width=WIDTH)
    by_path = predictor(path)
    assert by_path.source == path and (by_path.height, by_path.width, by_path.length) == (HEIGHT, WIDTH, T)
    with VideoReader(path) as video:
        assert predictor(video).to_json() == by_path.to_json()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ytvis19/none",), "no config 'ytvis19/none'; available: .*ytvis19/seqformer_R50"),
        (
            ("ytvis19/seqformer_R50",),
            "no trained weights for 'ytvis19/seqformer_R50'; available: .*released/",
        ),
        (("other.pth",), "weights 'other.pth' need a config: give `config_file`"),
        (("other.safetensors",), "weights 'other.safetensors' cannot be read: No such file"),
        ((None, "config.yaml"), "`config_file` needs a weights file"),
    ],
)
def test_missing_models(arguments: tuple, message: str) -> None:
    model, config_file = (*arguments, None)[:2]
    with pytest.raises(InputError, match=message):
        VideoPredictor.from_pretrained(model, config_file=config_file)


def test_a_weights_file_with_its_config(tmp_path: Path) -> None:
    save_file({}, tmp_path / "empty.safetensors")
    config = model_zoo.get_config_file(model_zoo.SHIPPED_MODEL)
    with pytest.raises(InputError, match="empty.safetensors' have no state dict"):
        VideoPredictor.from_pretrained(tmp_path / "empty.safetensors", config_file=config)


def test_instances_are_drawn_where_they_are(result: VideoPrediction) -> None:
    frame = np.full((HEIGHT, WIDTH, 3), 128, dtype=np.uint8)
    drawn = result.draw(frame, 0)
    assert (frame == 128).all(), "the frame itself stays as it is"
    assert (drawn[14:18, 34:46] != 128).any(axis=2).all()
    assert (drawn[40:] == 128).all()
    assert (result.draw(frame, 2) == frame).all()
    assert (result.draw(frame, 0, threshold=0.95) == frame).all()
    with pytest.raises(InputError, match="there is no frame 3: the video has frames 0 to 2"):
        result.draw(frame, 3)
    with pytest.raises(InputError, match=r"the frame has shape \(64, 48, 3\), not \(48, 64, 3\)"):
        result.draw(frame.transpose(1, 0, 2), 0)


def test_results_are_saved(result: VideoPrediction, tmp_path: Path) -> None:
    result.save(tmp_path / "results.json")
    assert json.loads((tmp_path / "results.json").read_text()) == result.to_json()
    grey = [np.full((HEIGHT, WIDTH, 3), 128, dtype=np.uint8)] * T
    result.save(tmp_path / "drawn.mp4", grey, fps=5)
    with VideoReader(tmp_path / "drawn.mp4") as video:
        assert video.fps == 5
        first, _, last = video
    assert np.abs(first[14:18, 34:46].astype(int) - 128).max(axis=2).min() > 5
    assert np.abs(last.astype(int) - 128).max() < 5
    result.save(tmp_path / "pictures", grey)
    assert sorted(p.name for p in (tmp_path / "pictures").iterdir()) == [
        "00000.jpg",
        "00001.jpg",
        "00002.jpg",
    ]
    with pytest.raises(InputError, match="pass them as `frames`"):
        result.save(tmp_path / "nothing.mp4")
    assert not (tmp_path / "nothing.mp4").exists()
    with pytest.raises(InputError, match=r"must be a .json or .mp4 file, or a folder"):
        result.save(tmp_path / "drawn.avi", grey)
    assert not (tmp_path / "drawn.avi").exists()


def test_a_result_of_a_path_reads_its_frames_again(result: VideoPrediction, tmp_path: Path) -> None:
    encode(tmp_path / "video.mp4", T, height=HEIGHT, width=WIDTH)
    result.source = tmp_path / "video.mp4"
    result.save(tmp_path / "drawn.mp4")
    with VideoReader(tmp_path / "drawn.mp4") as drawn, VideoReader(tmp_path / "video.mp4") as source:
        assert drawn.fps == source.fps and len(list(drawn)) == T
