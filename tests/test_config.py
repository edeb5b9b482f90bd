from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.config import get_cfg

from seqformer import add_seqformer_config
from seqformer.config import load_config
from seqformer.errors import InputError

PUBLISHED = """
MODEL:
  META_ARCHITECTURE: "SeqFormer"
  MASK_ON: True
  BACKBONE:
    NAME: "D2SwinTransformer"
  SWIN:
    EMBED_DIM: 192
    DEPTHS: [2, 2, 18, 2]
    NUM_HEADS: [6, 12, 24, 48]
    WINDOW_SIZE: 12
    APE: False
    DROP_PATH_RATE: 0.3
    PATCH_NORM: True
    PRETRAIN_IMG_SIZE: 384
  SeqFormer:
    NUM_OBJECT_QUERIES: 300
    NUM_CLASSES: 40
    DEEP_SUPERVISION: True
    MULTI_CLS_ON: True
    APPLY_CLS_THRES: 0.05
    CLIP_MATCHING: False
    CLIP_LENGTH: 5
    CLIP_STRIDE: 1
    MERGE_ON_CPU: True
SOLVER:
  OPTIMIZER: "ADAMW"
  BACKBONE_MULTIPLIER: 0.1
  CLIP_GRADIENTS: {ENABLED: True, CLIP_TYPE: "full_model", CLIP_VALUE: 0.01}
INPUT:
  SAMPLING_FRAME_NUM: 5
  SAMPLING_FRAME_RANGE: 10
  SAMPLING_INTERVAL: 1
  SAMPLING_FRAME_SHUFFLE: False
  AUGMENTATIONS: []
  COCO_PRETRAIN: False
  PRETRAIN_SAME_CROP: False
FIND_UNUSED_PARAMETERS: True
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


def test_published_keys_load_unchanged(tmp_path: Path) -> None:
    cfg = load_config(write(tmp_path, PUBLISHED), ["MODEL.SeqFormer.CLIP_LENGTH", "7"])
    assert cfg.MODEL.SWIN.EMBED_DIM == 192
    assert cfg.MODEL.SeqFormer.CLIP_LENGTH == 7


def test_defaults_are_the_published_ones() -> None:
    cfg = get_cfg()
    add_seqformer_config(cfg)
    c = cfg.MODEL.SeqFormer
    assert (c.NUM_CLASSES, c.NUM_OBJECT_QUERIES, c.HIDDEN_DIM, c.NHEADS, c.DIM_FEEDFORWARD) == (
        80,
        300,
        256,
        8,
        1024,
    )
    assert (c.ENC_LAYERS, c.DEC_LAYERS, c.ENC_N_POINTS, c.DEC_N_POINTS, c.NUM_FEATURE_LEVELS) == (
        6,
        6,
        4,
        4,
        4,
    )
    assert (c.MASK_WEIGHT, c.DICE_WEIGHT, c.GIOU_WEIGHT, c.L1_WEIGHT, c.CLASS_WEIGHT) == (2, 5, 2, 5, 2)
    assert (c.SET_COST_CLASS, c.SET_COST_BOX, c.SET_COST_GIOU, c.FOCAL_ALPHA) == (2, 5, 2, 0.25)
    assert (c.APPLY_CLS_THRES, c.CLIP_MATCHING, c.CLIP_LENGTH, c.CLIP_STRIDE) == (0.05, False, 5, 1)
    assert (c.AUTO_MEMORY_GB, c.MAX_LIVE_INSTANCES) == (0.0, 0), "off: they are not published ones"
    assert (cfg.SOLVER.OPTIMIZER, cfg.SOLVER.BACKBONE_MULTIPLIER) == ("ADAMW", 0.1)


@pytest.mark.parametrize(
    "path", sorted(Path(__file__).parents[1].glob("configs/**/*.yaml")), ids=lambda p: p.stem
)
def test_shipped_configs_load(path: Path) -> None:
    assert load_config(path).MODEL.META_ARCHITECTURE == "SeqFormer"


CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.mark.parametrize("folder", ["ytvis19", "ytvis21", "ovis"])
@pytest.mark.parametrize("backbone", ["R50", "R101", "X101", "SwinL"])
@pytest.mark.parametrize(("joint", "drops"), [("", (2, 10)), ("_joint", (4, 10))])
def test_the_published_recipe(folder: str, backbone: str, joint: str, drops: tuple[int, int]) -> None:
    cfg = load_config(CONFIGS / folder / f"seqformer_{backbone}{joint}.yaml")
    video_clips = 8 if joint else 16
    epoch = 61845 / video_clips
    assert pytest.approx(12 * epoch, abs=1) == cfg.SOLVER.MAX_ITER
    assert pytest.approx([drop * epoch for drop in drops], abs=1) == cfg.SOLVER.STEPS
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.IMS_PER_BATCH, cfg.INPUT.SAMPLING_FRAME_NUM) == (2e-4, 16, 5)
    assert tuple(cfg.INPUT.MIN_SIZE_TRAIN) == tuple(range(288, 513, 32)) and cfg.INPUT.MAX_SIZE_TRAIN == 768
    assert (cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE) == (True, "absolute_range")
    assert tuple(cfg.INPUT.CROP.SIZE) == (384, 600)
    assert (480 if backbone == "SwinL" else 360) == cfg.INPUT.MIN_SIZE_TEST
    data = {"ytvis19": "ytvis_2019", "ytvis21": "ytvis_2021", "ovis": "ovis"}[folder]
    coco = f"coco2{data.replace('ytvis_', 'ytvis')}_train"
    assert ((f"{data}_train", coco) if joint else (f"{data}_train",)) == cfg.DATASETS.TRAIN
    assert len(cfg.DATASETS.TRAIN_RATIOS) == (2 if joint else 0)
    assert (f"{data}_val",) == cfg.DATASETS.TEST
    assert (25 if folder == "ovis" else 40) == cfg.MODEL.SeqFormer.NUM_CLASSES
    if joint:
        before = load_config(CONFIGS / "coco" / f"seqformer_{backbone}.yaml")
        assert f"{before.OUTPUT_DIR}/model_final.pth" == cfg.MODEL.WEIGHTS
        assert before.MODEL.SeqFormer.NUM_CLASSES == 80 and before.INPUT.SAMPLING_FRAME_NUM == 1
        assert before.DATASETS.TRAIN == ("coco_2017_train",)
        assert before.MODEL.BACKBONE == cfg.MODEL.BACKBONE and before.MODEL.RESNETS == cfg.MODEL.RESNETS
        assert before.MODEL.SWIN == cfg.MODEL.SWIN


def test_every_config_writes_to_a_folder_of_its_own() -> None:
    folders = [load_config(path).OUTPUT_DIR for path in CONFIGS.glob("*/*.yaml")]
    assert len(set(folders)) == len(folders) > 20


@pytest.mark.parametrize(
    ("text", "opts", "message"),
    [
        ("MODEL: {NOTHING: 1}", [], "NOTHING"),
        ("MODEL: [", [], "config.yaml"),
        ("SOLVER: {BASE_LR: fast}", [], "BASE_LR"),
        ("MODEL: {DEVICE: null}", [], "MODEL.DEVICE has no value"),
        ("VERSION: 2", ["SOLVER.STEPS", "None"], "SOLVER.STEPS has no value"),
        ("", [], "config.yaml"),
        ("VERSION: 2", ["MODEL.NOTHING", "1"], "NOTHING"),
        ("VERSION: 2", ["MODEL.WEIGHTS"], "no value"),
        ("VERSION: 2", ["SOLVER.MAX_ITER", "many"], "MAX_ITER"),
    ],
)
def test_bad_configs_are_refused_in_one_line(
    tmp_path: Path, text: str, opts: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        load_config(write(tmp_path, text), opts)
    assert "\n" not in str(error.value)


def test_missing_config(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no config file"):
        load_config(tmp_path / "none.yaml")


def bomb(levels: int) -> str:
    """Each level refers to the one before nine times."""
    lines = ["a0: &a0 {x: 1}"]
    for i in range(1, levels):
        lines.append(f"a{i}: &a{i} {{" + ", ".join(f"k{j}: *a{i - 1}" for j in range(9)) + "}")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("OUTPUT_DIR: !!python/object/apply:os.mkdir [{marker}]", "os.mkdir"),
        ("_BASE_: base.yaml", "os.mkdir"),
        ("_BASE_: config.yaml", "'.*config.yaml' is its own _BASE_"),
        ("_BASE_: circle.yaml", "'.*config.yaml' is its own _BASE_"),
        ("_BASE_: [folder/link.yaml]", "'.*config.yaml' is its own _BASE_"),
        ("_BASE_: 3", "must be a file name"),
        ("_BASE_: many0.yaml", "more than 100 files"),
        ("_BASE_: bomb.yaml", "bomb.yaml': 72 aliases"),
        ("_BASE_: [none.yaml]", "none.yaml"),
        ("_BASE_: /dev/zero", "longer than"),
        ("[" * 100_000, "nested deeper than 100 levels"),
        (bomb(9), "72 aliases"),
        ("OUTPUT_DIR: a\x00b", "special characters"),
    ],
)
def test_a_config_executes_no_code_and_takes_little_memory(tmp_path: Path, text: str, message: str) -> None:
    marker = tmp_path / "made"
    code = f"OUTPUT_DIR: !!python/object/apply:os.mkdir [{marker}]"
    (tmp_path / "base.yaml").write_text(code)
    (tmp_path / "bomb.yaml").write_text(bomb(9))
    (tmp_path / "circle.yaml").write_text("_BASE_: ./config.yaml")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/link.yaml").write_text("_BASE_: ../config.yaml")
    for level in range(8):
        (tmp_path / f"many{level}.yaml").write_text(f"_BASE_: {[f'many{level + 1}.yaml'] * 2}")
    (tmp_path / "many8.yaml").write_text("VERSION: 2")
    with pytest.raises(InputError, match=rf"config file '.*': .*{message}") as error:
        load_config(write(tmp_path, text.replace("{marker}", str(marker))))
    assert "\n" not in str(error.value)
    assert not marker.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gpu_that_is_not_there(tmp_path: Path, device: str, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, PUBLISHED)
    with pytest.raises(InputError, match=f"MODEL.DEVICE '{device}' cannot be used: PyTorch .* finds no GPU"):
        load_config(path, ["MODEL.DEVICE", device])
    caplog.set_level("INFO", "seqformer")
    caplog.clear()
    path = write(tmp_path, PUBLISHED.replace("MASK_ON: True", f"DEVICE: {device}"))
    assert load_config(path).MODEL.DEVICE == "cpu"
    messages = [record.getMessage() for record in caplog.records if record.name == "seqformer.config"]
    assert messages == [f"no GPU is available: MODEL.DEVICE is cpu instead of {device}"]
    caplog.clear()
    assert load_config(path, ["MODEL.DEVICE", "cpu"]).MODEL.DEVICE == "cpu"
    assert "no GPU" not in caplog.text
