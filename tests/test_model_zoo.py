"""The model zoo: Detectron2's functions, and the released models by name, with files made here."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from networks import equal_states, tiny_config, tiny_model
from originals import original_layout, released_file
from safetensors.torch import load_file
from videos import encode

from seqformer import SeqFormer, VideoPredictor, load_config, model_zoo
from seqformer.checkpoints import read_state
from seqformer.cli import train
from seqformer.cli.main import main
from seqformer.data import resolve_datasets
from seqformer.data.toy import make_toy_dataset
from seqformer.errors import InputError

RELEASED = [name for name in model_zoo.MODELS if name.startswith("released/")]
R50 = "released/seqformer_R50"


def test_the_authors_figures() -> None:
    r50, swin = model_zoo.MODELS[R50], model_zoo.MODELS["released/seqformer_SwinL_joint"]
    assert (r50.ap, r50.ap50, r50.ap75) == (45.1, 66.9, 50.5)
    assert (swin.ap, swin.ap50, swin.ap75) == (59.3, 82.1, 66.4)
    assert all((m.ap is None) == (m.ap50 is None) == (m.ap75 is None) for m in model_zoo.MODELS.values())
    ids = [model.drive_id for model in model_zoo.MODELS.values() if model.drive_id]
    assert len(set(ids)) == len(ids) == 9 and all(re.fullmatch(r"1[-\w]{32}", drive_id) for drive_id in ids)


@pytest.mark.parametrize("name", model_zoo.MODELS)
def test_every_model_has_a_config_that_agrees(name: str) -> None:
    model, cfg = model_zoo.MODELS[name], load_config(model_zoo.get_config_file(f"{name}.yaml"))
    assert model.num_classes == cfg.MODEL.SeqFormer.NUM_CLASSES
    assert model.protocol == cfg.MODEL.SeqFormer.RESULT_PROTOCOL
    assert model_zoo.find_name(model_zoo.get_config_file(name)) == name
    trained = model_zoo.get_config(name, trained=True)
    assert trained.MODEL.WEIGHTS == model_zoo.get_checkpoint_url(name) != cfg.MODEL.WEIGHTS
    assert model_zoo.get_config(name).MODEL.WEIGHTS == cfg.MODEL.WEIGHTS


@pytest.mark.parametrize("name", [name for name in RELEASED if not name.endswith("_coco")])
def test_training_starts_from_the_coco_weights_of_the_same_network(name: str) -> None:
    cfg = model_zoo.get_config(name)
    coco = next(m for m in model_zoo.MODELS.values() if f"gdrive://{m.drive_id}" == cfg.MODEL.WEIGHTS)
    before = model_zoo.get_config(coco.name)
    assert coco.num_classes == 80
    assert before.MODEL.BACKBONE == cfg.MODEL.BACKBONE and before.MODEL.RESNETS == cfg.MODEL.RESNETS
    assert before.MODEL.SWIN == cfg.MODEL.SWIN


@pytest.mark.filterwarnings("ignore:pkg_resources is deprecated")
def test_the_functions_are_detectron2s() -> None:
    import detectron2.model_zoo

    for name in ("get_config_file", "get_config", "get_checkpoint_url", "get"):
        ours, theirs = (inspect.signature(getattr(zoo, name)) for zoo in (model_zoo, detectron2.model_zoo))
        defaults = [[p.default for p in signature.parameters.values()] for signature in (ours, theirs)]
        assert defaults[0] == defaults[1]
        assert list(ours.parameters)[1:] == list(theirs.parameters)[1:]
    assert model_zoo.get_config_file("ytvis19/seqformer_R50.yaml").is_file()
    with pytest.raises(InputError, match="no config 'none'; available: .*ytvis19/seqformer_R50"):
        model_zoo.get_config("none")
    with pytest.raises(InputError, match="no trained weights for 'ytvis19/seqformer_R50'; available: ped"):
        model_zoo.get_checkpoint_url("ytvis19/seqformer_R50.yaml")


@pytest.mark.parametrize("name", [model.name for model in model_zoo.MODELS.values() if model.file])
def test_the_shipped_models(name: str) -> None:
    model = model_zoo.get(name, trained=True, device="cpu")
    assert isinstance(model, SeqFormer) and model.training
    state = load_file(model_zoo.get_weights_file(name))
    assert all(torch.equal(model.state_dict()[name].to(t.dtype), t) for name, t in state.items())


def test_the_shipped_video_is_recognised(repository: Path, tmp_path: Path) -> None:
    street = repository / "demo/assets/street.mp4"
    shutil.copy(street, tmp_path / "copy.mp4")
    assert model_zoo.is_shipped_video(street) and model_zoo.is_shipped_video(tmp_path / "copy.mp4")
    data = bytearray(street.read_bytes())
    data[-1] ^= 1
    (tmp_path / "street.mp4").write_bytes(data)
    assert not model_zoo.is_shipped_video(tmp_path / "street.mp4")
    assert not model_zoo.is_shipped_video(tmp_path)


@pytest.fixture
def made_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SeqFormer:
    """A zoo whose R50 is tiny, and a Google Drive with its weights, in the original release's layout.

    They are those of the returned model.
    """
    root, cfg = (
        tmp_path / "zoo",
        tiny_config(NUM_CLASSES=3, NUM_OBJECT_QUERIES=20, RESULT_PROTOCOL="original"),
    )
    config = root / f"configs/{R50}.yaml"
    config.parent.mkdir(parents=True)
    cfg.INPUT.MIN_SIZE_TEST = 64
    cfg.MODEL.WEIGHTS = f"gdrive://{model_zoo.MODELS['released/seqformer_R50_coco'].drive_id}"
    config.write_text(cfg.dump())
    model = tiny_model(**cfg.MODEL.SeqFormer)
    gdown = ModuleType("gdown")

    def download(*, id: str, output: str, **_: object) -> str:
        assert id == model_zoo.MODELS[R50].drive_id
        released_file(Path(output), original_layout(model.state_dict(), [1, 2, 3], 5))
        return output

    gdown.download, gdown.DownloadError = download, OSError
    monkeypatch.setitem(sys.modules, "gdown", gdown)
    monkeypatch.setattr(model_zoo, "root", lambda: root)
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    return model


def test_a_released_model_by_name(made_release: SeqFormer) -> None:
    model = model_zoo.get(R50, trained=True, device="cpu")
    assert model.training and equal_states(model, made_release)
    predictor = VideoPredictor.from_pretrained(R50)
    assert equal_states(predictor.model, made_release)
    assert predictor.class_names == ["class 0", "class 1", "class 2"], "the config has another test set"
    by_config = VideoPredictor.from_pretrained(model_zoo.get_config_file(R50))
    assert equal_states(by_config.model, made_release), "not what training starts from"


def test_prediction_by_name(
    made_release: SeqFormer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video, output = encode(tmp_path / "in.mp4", 3), tmp_path / "out.mp4"
    command = ["predict", str(video), "--output", str(output), "--model", R50]
    main([*command, "--opts", "MODEL.SeqFormer.APPLY_CLS_THRES", "0.0"])
    assert "note:" not in capsys.readouterr().err
    scores = [result["score"] for result in json.loads((tmp_path / "out.json").read_text())]
    predictor = VideoPredictor.from_pretrained(R50, opts=["MODEL.SeqFormer.APPLY_CLS_THRES", "0.0"])
    assert scores == [result["score"] for result in predictor(video).to_json()] != []
    with pytest.raises(SystemExit):
        main([*command, "--config-file", str(model_zoo.get_config_file(R50))])
    assert "error: --model has a config of its own: leave out --config-file" in capsys.readouterr().err
    (downloaded,) = (tmp_path / "cache/drive.google.com").rglob("*.pth")
    shutil.move(downloaded, tmp_path)
    main([*command, "--weights", str(tmp_path / "weights.pth")])
    assert not list((tmp_path / "cache").rglob("*.pth")), "weights downloaded by hand are used"


@pytest.mark.parametrize("more", [[], ["--eval-only"]])
def test_training_and_evaluation_by_name(
    made_release: SeqFormer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    train_json, val_json, images = make_toy_dataset(tmp_path, num_train=1, num_val=1, length=3, size=(48, 64))
    options = [
        *("DATASETS.TRAIN", f"('ytvis:{train_json}:{images}',)"),
        *("DATASETS.TEST", f"('ytvis:{val_json}:{images}',)"),
        *("INPUT.MIN_SIZE_TRAIN", "(48,)", "DATALOADER.NUM_WORKERS", "0", "SOLVER.IMS_PER_BATCH", "1"),
        *("SOLVER.MAX_ITER", "1", "SOLVER.BASE_LR", "0.0", "SOLVER.WEIGHT_DECAY", "0.0"),
        *("OUTPUT_DIR", str(tmp_path / "out")),
    ]
    started = []
    monkeypatch.setattr(train, "launch", lambda *_, args, **__: started.append(args[0]))
    main(["train", "--model", R50, *more, *options])
    (args,) = started
    cfg = load_config(args.config_file, args.opts)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (
        resolve_datasets(names) for names in (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST)
    )
    (tmp_path / "out").mkdir()
    train.train_or_evaluate(cfg, eval_only=args.eval_only)
    if args.eval_only:
        assert list((tmp_path / "out").rglob("results.json"))
        return
    trained, expected = read_state(tmp_path / "out/model_final.pth"), made_release.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in trained.items())


def test_training_takes_a_name_or_a_config(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--model", R50, "--config-file", "configs/toy/seqformer_toy.yaml"])
    assert "not allowed with argument --model" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["train", "--model", "toy/seqformer_toy"])
    assert "error: no trained weights for 'toy/seqformer_toy'" in capsys.readouterr().err


def test_models_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["models"])
    printed = capsys.readouterr().out
    assert all(re.search(rf"^{name} +\S", printed, re.MULTILINE) for name in model_zoo.MODELS)
    (line,) = (line for line in printed.splitlines() if line.startswith(f"{R50} "))
    assert line.split()[-5:-1] == ["40", "45.1", "66.9", "50.5"]
    assert "the authors' figures, not measured here" in printed


def test_the_table_of_the_documentation_agrees(repository: Path) -> None:
    rows = (repository / "MODEL_ZOO.md").read_text(encoding="utf-8").splitlines()
    for name in RELEASED:
        model = model_zoo.MODELS[name]
        (row,) = (row for row in rows if row.startswith(f"| `{name}` "))
        assert f"(https://drive.google.com/file/d/{model.drive_id}/view)" in row
        figures = re.findall(r"\d\d\.\d", row)
        assert figures == [f"{ap:.1f}" for ap in (model.ap, model.ap50, model.ap75) if ap is not None]
