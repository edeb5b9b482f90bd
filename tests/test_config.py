from __future__ import annotations

from pathlib import Path

import pytest
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
    assert (cfg.SOLVER.OPTIMIZER, cfg.SOLVER.BACKBONE_MULTIPLIER) == ("ADAMW", 0.1)


@pytest.mark.parametrize(
    "path", sorted(Path(__file__).parents[1].glob("configs/**/*.yaml")), ids=lambda p: p.stem
)
def test_shipped_configs_load(path: Path) -> None:
    assert load_config(path).MODEL.META_ARCHITECTURE == "SeqFormer"


@pytest.mark.parametrize(
    ("text", "opts", "message"),
    [
        ("MODEL: {NOTHING: 1}", [], "NOTHING"),
        ("MODEL: [", [], "config.yaml"),
        ("SOLVER: {BASE_LR: fast}", [], "BASE_LR"),
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
