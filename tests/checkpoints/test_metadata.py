"""Models in one file: what is in the metadata, and what a file from a stranger may not do."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
import yaml
from networks import tiny_config, tiny_model
from safetensors.torch import save_file

from seqformer import VideoPredictor, load_config, model_zoo
from seqformer.checkpoints import model_metadata, read_category_ids, read_config, read_metadata
from seqformer.cli import export_weights
from seqformer.data.photo_vis import CLASSES
from seqformer.errors import InputError

NAMES = ["cat", "dog"]


@pytest.fixture
def predictor(tmp_path: Path) -> VideoPredictor:
    """A tiny model with random weights, and options that differ from the defaults."""
    cfg = tiny_config(NUM_CLASSES=2, NUM_OBJECT_QUERIES=20, APPLY_CLS_THRES=0.001, RESULT_PROTOCOL="pairs")
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 64, 96
    cfg.MODEL.PIXEL_MEAN = [1.0, 2.0, 3.0]
    cfg.MODEL.WEIGHTS = str(tmp_path / "source.safetensors")
    state = {name: tensor.clone() for name, tensor in tiny_model(**cfg.MODEL.SeqFormer).state_dict().items()}
    save_file(state, cfg.MODEL.WEIGHTS, {"thing_classes": json.dumps(NAMES), "category_ids": "[17, 18]"})
    return VideoPredictor(cfg)


def frames() -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (3, 60, 80, 3), dtype=np.uint8))


def test_one_file_is_a_model(predictor: VideoPredictor, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    predictor.save(path, license="CC-BY-4.0")
    fields = read_metadata(path)
    assert fields["license"] == "CC-BY-4.0"
    assert json.loads(fields["preprocessing"]) == {
        "channels": "RGB",
        "short_side": 64,
        "long_side_at_most": 96,
        "padded_to_multiple_of": 32,
        "mean": [1.0, 2.0, 3.0],
        "std": [58.395, 57.12, 57.375],
    }
    other = VideoPredictor.from_pretrained(path)
    assert other.class_names == NAMES
    assert other.options == predictor.options and other.options.protocol == "pairs"
    expected = predictor(frames())
    assert expected.tracklets
    assert other(frames()).to_json() == expected.to_json()
    changed = VideoPredictor.from_pretrained(path, opts=["MODEL.SeqFormer.CLIP_LENGTH", "7"])
    assert changed.options.clip_length == 7
    assert read_category_ids(path) == [17, 18]
    predictor.save(path, half=True)
    assert VideoPredictor.from_pretrained(path).class_names == NAMES
    assert path.stat().st_size < 0.6 * Path(predictor.cfg.MODEL.WEIGHTS).stat().st_size


def test_export_with_a_config(predictor: VideoPredictor, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(predictor.cfg.dump())
    torch.save({"model": predictor.model.state_dict()}, tmp_path / "model.pth")
    output = tmp_path / "out.safetensors"
    command = [str(tmp_path / "model.pth"), str(output), "--config-file", str(tmp_path / "config.yaml")]
    export_weights.main([*command, "--license", "MIT", "--classes", *NAMES])
    assert read_metadata(output)["license"] == "MIT"
    assert VideoPredictor.from_pretrained(output).options == predictor.options


def test_the_config_has_what_the_network_needs_and_nothing_else(tmp_path: Path) -> None:
    cfg = tiny_config(NUM_CLASSES=2)
    cfg.MODEL.WEIGHTS = cfg.MODEL.TIMM.WEIGHTS = cfg.OUTPUT_DIR = "/home/me/secret"
    text = model_metadata(NAMES, cfg)["config"]
    assert "secret" not in text and "DEVICE" not in text and "DATASETS" not in text
    with pytest.raises(InputError, match="the config has 2 classes, but there are 1 class names"):
        model_metadata(["cat"], cfg)


@pytest.mark.parametrize("model", [m for m in model_zoo.MODELS.values() if m.file], ids=lambda m: m.name)
def test_shipped_files_have_the_shipped_configs(model: model_zoo.ZooModel) -> None:
    weights = model_zoo.get_weights_file(model.name)
    cfg = load_config(model_zoo.get_config_file(model.name))
    in_file = read_config(weights)
    assert in_file is not None
    for section in ("BACKBONE", "TIMM", "SeqFormer", "PIXEL_MEAN", "PIXEL_STD"):
        assert in_file.MODEL[section] == cfg.MODEL[section]
    names = {model_zoo.SHIPPED_MODEL: ["person"], "photo_vis/seqformer_effnet_lite0": list(CLASSES)}
    fields = model_metadata(names[model.name], cfg, license=model.license)
    fields["config"] = read_metadata(weights)["config"]  # which lacks keys that are newer than the file
    assert read_metadata(weights) == fields


BILLION = "MODEL: {BACKBONE: &a {NAME: x}, RESNETS: *a}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MODEL: {WEIGHTS: /etc/passwd}", "a weights file cannot set MODEL.WEIGHTS"),
        ("_BASE_: {a: b}", "a weights file cannot set _BASE_.a"),
        ("_BASE_: /etc/passwd", "not a config"),
        ("MODEL: {TIMM: {WEIGHTS: /etc/passwd}}", "a weights file cannot set MODEL.TIMM.WEIGHTS"),
        ("MODEL: {TIMM: {PRETRAINED: true}}", "a weights file cannot set MODEL.TIMM.PRETRAINED"),
        ("OUTPUT_DIR: /home", "not a config"),
        ("SOLVER: {BASE_LR: 1}", "a weights file cannot set SOLVER.BASE_LR"),
        ("MODEL: {SeqFormer: {NOTHING: 1}}", "NOTHING"),
        ("MODEL: {SeqFormer: {NUM_CLASSES: many}}", "NUM_CLASSES"),
        ("MODEL: {SeqFormer: 3}", "SeqFormer"),
        ("MODEL: !!python/object/apply:os.system [ls]", "not YAML"),
        ("MODEL: [", "not YAML"),
        ("[" * 5000, "not YAML"),
        ("- a", "not a config"),
        ("", "not a config"),
        (BILLION, "aliases are not allowed"),
        ("#" * 200_000, "longer than 100000 characters"),
    ],
)
def test_a_config_from_a_stranger(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "model.safetensors"
    save_file({}, path, {"config": text})
    with pytest.raises(InputError, match=message) as error:
        VideoPredictor.from_pretrained(path)
    assert "\n" not in str(error.value) and f"config in '{path}'" in str(error.value)


@pytest.mark.parametrize("text", ["{", '{"a": 1}', "[1]", '["cat", null]'])
def test_class_names_from_a_stranger(predictor: VideoPredictor, tmp_path: Path, text: str) -> None:
    path = tmp_path / "model.safetensors"
    save_file({}, path, {"thing_classes": text, "config": model_metadata(NAMES, predictor.cfg)["config"]})
    with pytest.raises(InputError):
        VideoPredictor.from_pretrained(path)


class FakeHub:
    """The API of huggingface_hub, with a folder in the place of the hub."""

    def __init__(self, root: Path):
        self.root = root

    def create_repo(self, repo_id: str, *, private: bool | None, exist_ok: bool) -> None:
        assert exist_ok
        (self.root / repo_id).mkdir(parents=True, exist_ok=True)

    def file_exists(self, repo_id: str, filename: str) -> bool:
        return (self.root / repo_id / filename).is_file()

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> None:
        for path in Path(folder_path).iterdir():
            (self.root / repo_id / path.name).write_bytes(path.read_bytes())


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def download(repo_id: str, filename: str, *, revision: str | None = None) -> str:
        return str(tmp_path / "hub" / repo_id / filename)

    monkeypatch.setattr(huggingface_hub, "HfApi", lambda token=None: FakeHub(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return tmp_path / "hub"


def test_to_the_hub_and_back(predictor: VideoPredictor, hub: Path) -> None:
    address = predictor.push_to_hub("me/street", license="MIT")
    assert address == "hf://me/street"
    assert VideoPredictor.from_pretrained(address)(frames()).to_json() == predictor(frames()).to_json()
    card = (hub / "me/street/README.md").read_text()
    header, text = card.removeprefix("---\n").split("---\n", 1)
    assert yaml.safe_load(header)["license"] == "mit"
    assert 'from_pretrained("hf://me/street")' in text and "cat, dog" in text
    (hub / "me/street/README.md").write_text("my own words")
    predictor.push_to_hub("me/street")
    assert (hub / "me/street/README.md").read_text() == "my own words"


def failing(*_: object, **__: object) -> None:
    raise OSError("401\nunauthorised")


@pytest.mark.parametrize("step", ["create_repo", "file_exists", "upload_folder"])
def test_an_upload_that_fails_is_one_line(
    predictor: VideoPredictor, hub: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr(FakeHub, step, failing)
    with pytest.raises(InputError, match="'hf://me/street' cannot be written: 401 unauthorised"):
        predictor.push_to_hub("me/street")


def test_the_arguments_are_those_of_huggingface_hub() -> None:
    """The fakes above take what the installed version takes."""

    def names(function: Callable) -> set[str]:
        return set(inspect.signature(function).parameters)

    api = huggingface_hub.HfApi
    assert {"repo_id", "private", "exist_ok"} <= names(api.create_repo)
    assert {"repo_id", "filename"} <= names(api.file_exists)
    assert {"repo_id", "folder_path", "commit_message"} <= names(api.upload_folder)
    assert {"repo_id", "filename", "revision"} <= names(huggingface_hub.hf_hub_download)
    assert "token" in names(api)
