"""`seqformer train --finetune`: from one's own data to a model in one file, and bad input."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from networks import tiny_config

from seqformer import SeqFormer
from seqformer.checkpoints import model_metadata, read_class_names, read_config, read_state, write_model
from seqformer.cli.finetune_start import load_start
from seqformer.cli.main import main
from seqformer.config import load_config
from seqformer.data.toy import SHAPES, make_toy_dataset
from seqformer.formats.files import read_json, write_json
from seqformer.formats.ytvis import read_ytvis
from seqformer.model_zoo import SHIPPED_MODEL

FEW_STEPS = ["SOLVER.MAX_ITER", "2", "DATALOADER.NUM_WORKERS", "0", "INPUT.MIN_SIZE_TEST", "64"]
FEW_STEPS += ["MODEL.SeqFormer.APPLY_CLS_THRES", "0.0"]  # after a few steps no class is probable


@pytest.fixture(autouse=True)
def without_handlers() -> Iterator[None]:
    """Removes the handlers of logs, which write to the captured output of one test."""
    yield
    for name in ("detectron2", "fvcore", "seqformer"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


class Toy(NamedTuple):
    train: Path
    val: Path
    frames: Path


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    root = tmp_path_factory.mktemp("toy_data")
    return Toy(*make_toy_dataset(root, num_train=5, num_val=1, length=3, size=(48, 64)))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model in one file, that knows squares and dogs and has few queries."""
    cfg = tiny_config(NUM_CLASSES=2, NUM_OBJECT_QUERIES=6, CLIP_MATCHING=True, CLIP_LENGTH=2, CLIP_STRIDE=1)
    cfg.INPUT.MIN_SIZE_TEST = 64
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    torch.manual_seed(0)
    write_model(path, SeqFormer(cfg).state_dict(), model_metadata(["square", "dog"], cfg))
    return path


class Done(NamedTuple):
    output: Path
    said: str


@pytest.fixture(scope="module")
def done(toy: Toy, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A fine-tuning of two steps, with videos held out."""
    output = tmp_path_factory.mktemp("finetuning") / "tuned"
    capture = pytest.MonkeyPatch()
    printed: list[str] = []
    capture.setattr("builtins.print", lambda *words, **_: printed.append(" ".join(map(str, words))))
    try:
        main(
            [
                "train",
                "--finetune",
                *map(str, (model, toy.train, toy.frames)),
                "--output",
                str(output),
                *FEW_STEPS,
            ]
        )
    finally:
        capture.undo()
    return Done(output, "\n".join(printed))


def test_what_is_chosen_is_said_before_training(done: Done) -> None:
    before, _, after = done.said.partition("evaluation before training")
    assert "training: 4 videos, 12 frames" in before
    assert "validation: 1 videos, 3 frames" in before and "held out at random" in before
    assert "class head: re-initialised for circle, triangle" in before and "kept for square" in before
    assert "queries: 9, for up to 3 instances at once; the model had 6" in before
    assert "expected end: " in before
    assert "AP50 after" in after and "2 steps" in after


def test_the_held_out_video_is_not_trained_on(done: Done, toy: Toy) -> None:
    train, val = (read_ytvis(done.output / f"{name}.json") for name in ("train", "val"))
    assert not train.videos.keys() & val.videos.keys()
    assert train.videos.keys() | val.videos.keys() == read_ytvis(toy.train).videos.keys()


def test_the_model_starts_from_the_given_weights(done: Done, model: Path) -> None:
    start, given = read_state(done.output / "start.safetensors"), read_state(model)
    head = "detr.detr.class_embed.0.weight"
    names = list(SHAPES)
    assert torch.equal(start[head][names.index("square")], given[head][0])
    torch.testing.assert_close(start[head][names.index("circle")], given[head].mean(dim=0))
    assert all(torch.equal(start[name], given[name]) for name in given if "embed" not in name)


def test_one_file_is_the_model(done: Done, toy: Toy, tmp_path: Path) -> None:
    path = done.output / "model.safetensors"
    assert read_class_names(path) == list(SHAPES)
    cfg = read_config(path)
    assert (cfg.MODEL.SeqFormer.NUM_CLASSES, cfg.MODEL.SeqFormer.NUM_OBJECT_QUERIES) == (3, 9)
    frames = sorted((toy.frames / "val_001").iterdir())
    folder = tmp_path / "frames"
    folder.mkdir()
    for frame in frames:
        shutil.copy(frame, folder)
    main(["predict", str(folder), "--model", str(path), "--output", str(tmp_path / "out.mp4")])
    assert isinstance(read_json(tmp_path / "out.json"), list)


def test_before_and_after_are_saved(done: Done) -> None:
    evaluation = read_json(done.output / "evaluation.json")
    assert evaluation.keys() == {"before", "after"}
    assert {entry["name"] for entry in evaluation["after"]["categories"]} == set(SHAPES)
    for when in evaluation:
        assert read_json(done.output / "inference" / when / "results.json")


def test_the_training_can_be_repeated_from_its_config(done: Done, tmp_path: Path) -> None:
    config = done.output / "config.yaml"
    assert load_config(config).SOLVER.MAX_ITER == 2
    main(["train", "--config-file", str(config), "OUTPUT_DIR", str(tmp_path)])
    first, second = (read_state(folder / "model_final.pth") for folder in (done.output, tmp_path))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], rtol=1e-4, atol=1e-5)


def test_given_validation_data_are_used(toy: Toy, model: Path, tmp_path: Path) -> None:
    arguments = ["--finetune", *map(str, (model, toy.train, toy.frames)), "--val", *map(str, toy[1:])]
    main(["train", *arguments, "--output", str(tmp_path / "out"), *FEW_STEPS])
    assert [video.names for video in read_ytvis(tmp_path / "out/val.json").videos.values()] == [
        video.names for video in read_ytvis(toy.val).videos.values()
    ]
    assert len(read_ytvis(tmp_path / "out/train.json").videos) == 5


def edited(toy: Toy, path: Path, **changes: object) -> Path:
    write_json(path, json.loads(toy.train.read_text()) | changes)
    return path


def test_one_video_is_too_little(
    toy: Toy, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads(toy.train.read_text())
    path = edited(
        toy,
        tmp_path / "one.json",
        videos=content["videos"][:1],
        annotations=[a for a in content["annotations"] if a["video_id"] == 1],
    )
    message = refused(capsys, [str(model), str(path), str(toy.frames)], tmp_path / "out")
    assert message.startswith(f"error: '{path}': 1 video with an instance: at least 2 are needed")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": []}, "has no annotations: there is nothing to train on"),
        ({"annotations": None}, "has no annotations: there is nothing to train on"),
        ({"videos": []}, "in the data, listed by `seqformer check"),
    ],
)
def test_data_without_anything_to_learn(
    toy: Toy, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict, message: str
) -> None:
    path = edited(toy, tmp_path / "data.json", **changes)
    assert message in refused(capsys, [str(model), str(path), str(toy.frames)], tmp_path / "out")


def test_a_missing_frame_is_found_at_once(
    toy: Toy, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(toy.frames, tmp_path / "frames")
    (tmp_path / "frames" / "train_002" / "00001.jpg").unlink()
    said = refused(capsys, [str(model), str(toy.train), str(tmp_path / "frames")], tmp_path / "out")
    assert "1 problem in the data, listed by `seqformer check" in said
    assert "video 2: 1 of 3 frames are missing" in said


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("released/nothing", "no model 'released/nothing': give pedestrians/seqformer_effnet_lite0, "),
        ("nothing.yaml", "no model 'nothing.yaml'"),
        ("nothing.safetensors", "no file 'nothing.safetensors'"),
        ("imagenet", "'imagenet' needs the weights of tf_efficientnet_lite0: MODEL.TIMM.WEIGHTS FILE"),
    ],
)
def test_a_model_that_does_not_exist(
    toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    assert message in refused(capsys, [name, str(toy.train), str(toy.frames)], tmp_path / "out")


def test_a_gpu_is_used_whatever_the_config_file_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_start(SHIPPED_MODEL).cfg.MODEL.DEVICE == "cpu"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert load_start(SHIPPED_MODEL).cfg.MODEL.DEVICE == "cuda"
    assert load_start(SHIPPED_MODEL, ["MODEL.DEVICE", "cpu"]).cfg.MODEL.DEVICE == "cpu"


def test_weights_without_a_config(toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": {}}, tmp_path / "weights.pth")
    data = [str(tmp_path / "weights.pth"), str(toy.train), str(toy.frames)]
    assert "have no config in them: give the config file instead" in refused(capsys, data, tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--minutes", "0"], "--minutes must be above 0"),
        (["--minutes", "nan"], "--minutes must be above 0"),
        (["--minutes", "0.01"], "--minutes are too few: a step takes about "),
        (["--resume"], "--finetune has one process, and no --resume"),
        (["DATASETS.TRAIN", "('a',)"], "DATASETS.TRAIN cannot be set"),
        (["SOLVER.NOTHING", "1"], "SOLVER.NOTHING"),
        (["SOLVER.MAX_ITER"], "'SOLVER.MAX_ITER' has no value"),
    ],
)
def test_options_that_cannot_be_used(
    toy: Toy,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    data = [str(model), str(toy.train), str(toy.frames)]
    assert message in refused(capsys, data, tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_an_output_that_exists(
    toy: Toy, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, [str(model), str(toy.train), str(toy.frames)], tmp_path)
    assert said.startswith(f"error: '{tmp_path}' exists: ")


def test_validation_data_of_other_classes(
    toy: Toy, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "fish"}]
    path = edited(toy, tmp_path / "data.json", categories=names)
    data = [str(model), str(toy.train), str(toy.frames), "--val", str(path), str(toy.frames)]
    assert "have different classes: circle, square, triangle, and cat" in refused(
        capsys, data, tmp_path / "out"
    )


def test_instances_without_ids_are_warned_of(
    toy: Toy, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Annotated in labelme without group ids, each mask is an instance of its own."""
    annotations = []
    for annotation in json.loads(toy.train.read_text())["annotations"]:
        for t, mask in enumerate(annotation["segmentations"]):
            masks = [mask if t == other else None for other in range(3)]
            own = {"id": 3 * annotation["id"] + t, "segmentations": masks, "bboxes": None, "areas": None}
            annotations += [annotation | own] if mask else []
    data = [str(model), str(edited(toy, tmp_path / "data.json", annotations=annotations)), str(toy.frames)]
    with pytest.raises(SystemExit):
        main(["train", "--finetune", *data, "--output", str(tmp_path / "out"), "--minutes", "0.01"])
    assert "warning: most instances are visible in one frame only" in capsys.readouterr().out


def test_val_needs_finetune(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", "--config-file", "a.yaml", "--val", str(toy.val), str(toy.frames)])
    assert stop.value.code == 2
    assert "--val is for --finetune" in capsys.readouterr().err


def refused(capsys: pytest.CaptureFixture[str], data: list[str], output: Path, *options: str) -> str:
    """The error of a fine-tuning, which must be one line."""
    with pytest.raises(SystemExit) as stop:
        main(["train", "--finetune", *data, "--output", str(output), *options])
    assert stop.value.code == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1 and "Traceback" not in errors
    return errors
