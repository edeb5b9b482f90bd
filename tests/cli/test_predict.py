"""`seqformer predict`, from the command line to its files."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from networks import tiny_config
from pycocotools import mask as mask_codec
from safetensors.torch import save_file
from videos import cut, encode, frames, join, packets_of, pictures, sound

from seqformer import SeqFormer
from seqformer.cli import predict
from seqformer.errors import InputError
from seqformer.model_zoo import SHIPPED_MODEL, get_weights_file
from seqformer.structures import RLE, Tracklet, VideoResult
from seqformer.video import VideoReader
from seqformer.visualization import instance_color, tracklets


def rectangle(left: int, height: int, width: int) -> RLE:
    mask = np.zeros((height, width), dtype=np.uint8, order="F")
    mask[40:80, left : left + 20] = 1
    rle = mask_codec.encode(mask)
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


class StubPredictor:
    """Predicts three instances in every video: one in all frames, one in the first only, one unlikely."""

    def __init__(self, cfg):
        self.cfg = cfg

    def __call__(self, source, observer=None) -> VideoResult:
        height, width, length = 0, 0, 0
        for frame in source:
            assert frame.dtype == np.uint8
            (height, width), length = frame.shape[:2], length + 1
        always = [rectangle(40, height, width)] * length
        return VideoResult(
            height,
            width,
            length,
            [
                Tracklet(0, 0, 0.5, always),
                Tracklet(0, 1, 0.9, always),
                Tracklet(1, 0, 0.8, [rectangle(70, height, width)] + [None] * (length - 1)),
                Tracklet(2, 0, 0.1, [rectangle(10, height, width)] * length),
            ],
        )


@pytest.fixture
def model(tmp_path) -> list[str]:
    """Options for a small model with random weights and two classes."""
    config, weights = tmp_path / "model" / "config.yaml", tmp_path / "model" / "weights.safetensors"
    config.parent.mkdir()
    cfg = tiny_config(NUM_CLASSES=2, NUM_OBJECT_QUERIES=20)
    cfg.INPUT.MIN_SIZE_TEST = 64
    config.write_text(cfg.dump())
    state = {name: tensor.clone() for name, tensor in SeqFormer(cfg).state_dict().items()}
    save_file(state, weights, {"thing_classes": json.dumps(["cat", "dog"])})
    return ["--config-file", str(config), "--weights", str(weights)]


@pytest.fixture
def stub(monkeypatch) -> None:
    monkeypatch.setattr(predict, "VideoPredictor", StubPredictor)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def fails(capsys, arguments: list[str], tmp_path: Path) -> str:
    """Runs a command that must exit with 2, print one line and leave no file; returns the line."""
    before = files(tmp_path)
    with pytest.raises(SystemExit) as stop:
        predict.main(arguments)
    captured = capsys.readouterr()
    assert stop.value.code == 2
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1, captured.err
    assert captured.out == ""
    assert files(tmp_path) == before
    return captured.err


@pytest.mark.parametrize(
    ("gigabytes", "how"), [("1.0", "the whole video is one clip"), ("1e-6", "clips of 5")]
)
def test_clips_if_memory_is_short(tmp_path, model, caplog, gigabytes: str, how: str):
    source = encode(tmp_path / "in.mp4", 3)
    auto = ["--opts", "MODEL.SeqFormer.AUTO_MEMORY_GB", gigabytes]
    predict.main(["--input", str(source), "--output", str(tmp_path / "out.mp4"), *model, *auto])
    (message,) = (text for text in caplog.messages if "AUTO_MEMORY_GB" in text)
    assert message.startswith("3 frames of ") and how in message


def test_video(tmp_path, model, stub, capsys):
    source = encode(tmp_path / "in.mp4", 7, fps=Fraction(30000, 1001))
    output = tmp_path / "new" / "out.mp4"
    predict.main(["--input", str(source), "--output", str(output), *model])
    assert files(output.parent) == {"out.mp4", "out.json"}

    with VideoReader(output) as video:
        assert (video.fps, video.height, video.width, video.length) == (Fraction(30000, 1001), 96, 128, 7)
        drawn = [frame.astype(int) for frame in video]
    tint = [np.array(instance_color(i)) for i in range(3)]
    for t, (frame, plain) in enumerate(zip(drawn, frames(7), strict=True)):
        wanted = 0.55 * plain[60, 50] + 0.45 * tint[0]
        assert np.abs(frame[60, 46:54].mean(axis=0) - wanted).max() < 12
        is_tinted = np.abs(frame[60, 76:84].mean(axis=0) - plain[60, 80]).max() > 15
        assert is_tinted == (t == 0), "the second instance is seen in the first frame alone"
        assert np.abs(frame[60, 16:24].mean(axis=0) - plain[60, 20]).max() < 12, "below the threshold"

    results = json.loads((tmp_path / "new" / "out.json").read_text())
    assert [(r["video_id"], r["category_id"], r["score"]) for r in results] == [
        (1, 1, 0.5),
        (1, 2, 0.9),
        (1, 1, 0.8),
        (1, 1, 0.1),
    ]
    assert results[2]["segmentations"] == [rectangle(70, 96, 128)] + [None] * 6
    captured = capsys.readouterr()
    assert "2 instances" in captured.out and "7 frames" in captured.out
    assert str(output) in captured.out and str(tmp_path / "new" / "out.json") in captured.out
    assert captured.err == ""


@pytest.mark.parametrize("streaming", [[], ["--streaming"]])
def test_output_keeps_times_and_sound(tmp_path, model, streaming):
    times = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.8, 1.9, 2.0, 2.1, 2.2, 2.3]
    silent, heard = encode(tmp_path / "silent.mp4", 12, times=times), sound(tmp_path / "sound.mka", 2.4)
    source = join(tmp_path / "in.mkv", silent, heard)
    output = tmp_path / "out.mp4"
    predict.main(["--input", str(source), "--output", str(output), *streaming, *model])
    start = packets_of(output, "video")[0][0]
    assert [time - start for time, _ in packets_of(output, "video")] == pytest.approx(times, abs=0.002)
    assert [p for _, p in packets_of(output, "audio")] == [p for _, p in packets_of(source, "audio")]


def test_pictures_to_folder(tmp_path, model, stub):
    clip = pictures(tmp_path / "clip", 12)
    predict.main(["--input", *map(str, clip.iterdir()), "--output", str(tmp_path / "out"), *model])
    assert files(tmp_path / "out") == {f"{t:05d}.jpg" for t in range(12)} | {"results.json"}


@pytest.mark.parametrize("streaming", [[], ["--streaming"]])
def test_existing_files_of_other_inputs_are_kept(tmp_path, model, capsys, streaming):
    (tmp_path / "other").mkdir()
    first, second = encode(tmp_path / "in.mp4", 3), encode(tmp_path / "other" / "in.mp4", 3)
    output = tmp_path / "clip.mp4"
    (tmp_path / "clip.json").write_text("mine")
    command = ["--output", str(output), *streaming, *model]
    refused = fails(capsys, ["--input", str(first), *command], tmp_path)
    assert "clip.json' exists and was not made from this input: choose another --output" in refused
    assert (tmp_path / "clip.json").read_text() == "mine"
    predict.main(["--input", str(first), "--overwrite", *command])
    assert isinstance(json.loads((tmp_path / "clip.json").read_text()), list)
    predict.main(["--input", str(first), *command])  # the same input again
    capsys.readouterr()
    before = output.read_bytes()
    refused = fails(capsys, ["--input", str(second), *command], tmp_path)
    assert "clip.mp4' exists and was not made from this input" in refused and "give --overwrite" in refused
    assert output.read_bytes() == before


def test_existing_page_of_another_input_is_kept(tmp_path, model, capsys):
    first, second = (encode(tmp_path / f"{name}.mp4", 3) for name in "ab")
    page = tmp_path / "page.html"
    page.write_text("<p>mine")

    def command(source: Path, output: str) -> list[str]:
        return ["--input", str(source), "--output", str(tmp_path / output), "--html", str(page), *model]

    assert "page.html' exists and was not made from" in fails(capsys, command(first, "1.mp4"), tmp_path)
    predict.main([*command(first, "1.mp4")[: -len(model)], "--overwrite", *model])
    predict.main(command(first, "2.mp4"))
    capsys.readouterr()
    assert "page.html' exists and was not made from" in fails(capsys, command(second, "3.mp4"), tmp_path)


def test_default_output(tmp_path, model, stub, monkeypatch):
    monkeypatch.chdir(tmp_path)
    predict.main(["--video-input", str(encode(tmp_path / "street.mkv", 3)), *model])
    assert files(tmp_path / "output") == {"street.mp4", "street.json"}


def test_threshold(tmp_path, model, stub, capsys):
    command = ["--input", str(encode(tmp_path / "in.mp4", 2)), "--output", str(tmp_path / "out.mp4"), *model]
    for threshold, count in (("0.05", 3), ("0.85", 1), ("1", 0)):
        predict.main([*command, "--confidence-threshold", threshold])
        assert f"{count} instances" in capsys.readouterr().out
    assert "from 0 to 1" in fails(capsys, [*command, "--confidence-threshold", "40"], tmp_path)


def test_labels(tmp_path, model, stub, monkeypatch):
    seen = []

    def draw(frame, masks, instance_ids, labels, scores):
        seen.append((list(instance_ids), labels, scores))
        return frame

    monkeypatch.setattr(tracklets, "draw_instances", draw)
    source = str(encode(tmp_path / "in.mp4", 2))
    predict.main(["--input", source, "--output", str(tmp_path / "out.mp4"), *model])
    first, second = ({i: (label, s) for i, label, s in zip(*call, strict=True)} for call in seen)
    assert first == {0: ("dog", 0.9), 1: ("cat", 0.8)}, "the best class of each instance"
    assert second == {0: ("dog", 0.9)}


def test_cut_off_video(tmp_path, model, stub, capsys):
    source = cut(encode(tmp_path / "in.mp4", 40, noise=True), 0.5)
    predict.main(["--input", str(source), "--output", str(tmp_path / "out.mp4"), *model])
    with VideoReader(tmp_path / "out.mp4") as video:
        count = len(list(video))
    assert 10 <= count <= 25
    error = capsys.readouterr().err
    assert error.startswith(f"warning: {count} of 40 frames") and error.count("\n") == 1
    results = json.loads((tmp_path / "out.json").read_text())
    assert {len(result["segmentations"]) for result in results} == {count}


BAD_INPUTS = {
    "missing": (lambda path: None, "no file"),
    "empty": (Path.touch, "empty"),
    "text": (lambda path: path.write_text("no video"), "is not a video"),
    "folder without pictures": (Path.mkdir, "no pictures"),
}


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_bad_input(tmp_path, model, stub, capsys, case):
    make, message = BAD_INPUTS[case]
    make(tmp_path / "in")
    command = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out.mp4"), *model]
    assert message in fails(capsys, command, tmp_path)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("file/out.mp4", "cannot be written"),
        ("file/out", "cannot be written"),
        ("out.avi", "name an .mp4"),
        ("in.mp4", "is the input: choose"),
        ("clip", "not empty"),
    ],
)
def test_bad_output_is_found_before_the_model_runs(tmp_path, model, monkeypatch, capsys, output, message):
    monkeypatch.setattr(predict, "VideoPredictor", lambda cfg: pytest.fail("the model was made"))
    encode(tmp_path / "in.mp4", 3)
    pictures(tmp_path / "clip", 1)
    (tmp_path / "file").write_text("no folder")
    command = ["--input", str(tmp_path / "in.mp4"), "--output", str(tmp_path / output), *model]
    assert message in fails(capsys, command, tmp_path)


def test_results_name_is_a_folder(tmp_path, model, stub, capsys):
    (tmp_path / "out.json").mkdir()
    command = ["--input", str(encode(tmp_path / "in.mp4", 3)), "--output", str(tmp_path / "out.mp4"), *model]
    assert "out.json' is a folder" in fails(capsys, command, tmp_path)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.SeqFormer.NO_SUCH_KEY", "1"], "NO_SUCH_KEY"),
        (["MODEL.SeqFormer.NUM_CLASSES", "many"], "many"),
        (["MODEL.SeqFormer.NUM_CLASSES"], "no value"),
        (["MODEL.META_ARCHITECTURE", "GeneralizedRCNN"], "GeneralizedRCNN"),
        (["MODEL.DEVICE", "abacus"], "abacus"),
        (["MODEL.SeqFormer.NUM_CLASSES", "3"], "do not match"),
        (["MODEL.SeqFormer.HIDDEN_DIM", "32"], "do not match"),
    ],
)
def test_bad_options(tmp_path, model, capsys, opts, message):
    command = ["--input", str(encode(tmp_path / "in.mp4", 3)), "--output", str(tmp_path / "out.mp4"), *model]
    assert message in fails(capsys, [*command, "--opts", *opts], tmp_path)


def test_bad_weights(tmp_path, model, capsys):
    source, output = str(encode(tmp_path / "in.mp4", 3)), str(tmp_path / "out.mp4")
    (tmp_path / "text.safetensors").write_text("no weights")
    command = ["--input", source, "--output", output, "--config-file", model[1]]
    for name in ("text.safetensors", "missing.safetensors", "missing.pth"):
        assert name in fails(capsys, [*command, "--weights", str(tmp_path / name)], tmp_path)
    assert "give --weights" in fails(capsys, command, tmp_path)


@pytest.mark.parametrize("other", [["--input", "b.mp4"], ["--webcam"], ["--video-input", "b.mp4"]])
@pytest.mark.parametrize("last", [False, True])
def test_only_one_kind_of_input(capsys, other, last):
    arguments = [*other, "--streaming", "a.mp4"] if last else ["a.mp4", *other]
    with pytest.raises(SystemExit) as stop:
        predict.main(arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err.splitlines()
    assert "not allowed with argument" in error[-1] and "error: " in error[-1]
    assert not any("error" in line for line in error[:-1])


def test_a_model_that_predicts_nothing(tmp_path, model):
    """The real predictor, as after the first steps of training."""
    source, output = encode(tmp_path / "in.mp4", 3), tmp_path / "out.mp4"
    opts = ["--opts", "MODEL.SeqFormer.APPLY_CLS_THRES", "1.0"]
    predict.main(["--input", str(source), "--output", str(output), *model, *opts])
    assert VideoReader(output).length == 3
    assert json.loads((tmp_path / "out.json").read_text()) == []


STREET = Path(__file__).resolve().parents[2] / "demo/assets/street.mp4"
NOTE = "note: the shipped model knows only people seen by one street camera"


def said_before_the_work(monkeypatch, capsys, *arguments: str) -> str:
    """What the command says until it makes the predictor."""

    def make(cfg):
        raise InputError("stopped")

    monkeypatch.setattr(predict, "VideoPredictor", make)
    with pytest.raises(SystemExit):
        predict.main(list(arguments))
    said, stopped, rest = capsys.readouterr().err.partition("error: stopped\n")
    assert stopped and not rest
    return said


def test_the_shipped_model_on_another_video_is_noted(tmp_path, monkeypatch, capsys):
    """On a stranger's clip it marked car parts as persons."""
    video, output = str(encode(tmp_path / "in.mp4", 3)), ["--output", str(tmp_path / "out.mp4")]
    said = said_before_the_work(monkeypatch, capsys, video, *output)
    assert said.startswith(NOTE) and said.count("\n") == 1
    assert said.endswith("Released weights know 40 classes: --model released/seqformer_R50_joint\n")
    for inputs in ([video, str(STREET)], [str(pictures(tmp_path / "clip", 2))]):
        said = said_before_the_work(monkeypatch, capsys, *inputs, "--output", str(tmp_path / "out"))
        assert said.startswith(NOTE) and said.count("\n") == 1


@pytest.mark.parametrize("chosen", ["--model", "--weights", "--opts", "street"])
def test_a_model_that_was_chosen_needs_no_note(tmp_path, monkeypatch, capsys, chosen):
    weights = str(get_weights_file(SHIPPED_MODEL))
    arguments = {
        "--model": ["--model", SHIPPED_MODEL],
        "--weights": ["--weights", weights],
        "--opts": ["--opts", "MODEL.WEIGHTS", weights],
        "street": [],
    }[chosen]
    video = STREET if chosen == "street" else encode(tmp_path / "in.mp4", 3)
    output = ["--output", str(tmp_path / "out.mp4")]
    assert said_before_the_work(monkeypatch, capsys, str(video), *output, *arguments) == ""


def run_demo(repository: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(repository / "demo/demo.py"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        # Jobs that a shell starts in the background ignore Ctrl-C, and so would their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_a_real_process(tmp_path, model, repository):
    source, output = encode(tmp_path / "in.mp4", 5), tmp_path / "out.mp4"
    process = run_demo(
        repository, "--input", str(source), "--output", str(output), "--confidence-threshold", "0", *model
    )
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0
    (line,) = stderr.splitlines()
    assert re.fullmatch(r"weights '.*': published Detectron2 layout; (\d+) of \1 tensors loaded", line)
    assert stdout.splitlines()[1:] == [str(output), str(tmp_path / "out.json")]
    with av.open(str(output)) as container:
        assert container.streams.video[0].frames == 5


def test_a_real_process_on_bad_input(tmp_path, model, repository):
    process = run_demo(repository, "--input", str(tmp_path / "missing.mp4"), *model)
    stdout, stderr = process.communicate(timeout=300)
    assert (process.returncode, stdout) == (2, "")
    assert stderr == f"error: no file '{tmp_path / 'missing.mp4'}'\n"


def test_interrupted(tmp_path, model, repository):
    source, output = encode(tmp_path / "in.mp4", 2000), tmp_path / "out" / "out.mp4"
    process = run_demo(repository, "--input", str(source), "--output", str(output), *model)
    deadline = time.monotonic() + 240
    while not list(tmp_path.glob("out/.*.part")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it never began to write"
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=300)
    assert (process.returncode, stdout) == (130, "")
    assert "interrupted" in stderr and "Traceback" not in stderr
    assert files(tmp_path / "out") == set()
