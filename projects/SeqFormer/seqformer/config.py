"""Configuration keys of SeqFormer, added to Detectron2's defaults.

Names and defaults are those of the published Detectron2-style SeqFormer configs, so that their YAML
files load unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import yaml
from detectron2.config import CfgNode as CN
from detectron2.config import get_cfg

from seqformer.errors import InputError

__all__ = ["add_seqformer_config", "load_config"]


def add_seqformer_config(cfg: CN) -> None:
    """Adds SeqFormer's keys to ``cfg``, in place.

    Args:
        cfg: a Detectron2 config, usually ``detectron2.config.get_cfg()``.
    """
    # How the dataset mapper samples clips: frames in a clip, the farthest distance of the others from the
    # reference frame (in frames), the spacing of the candidates, and whether to shuffle them.
    cfg.INPUT.SAMPLING_FRAME_NUM = 1
    cfg.INPUT.SAMPLING_FRAME_RANGE = 10
    cfg.INPUT.SAMPLING_INTERVAL = 1
    cfg.INPUT.SAMPLING_FRAME_SHUFFLE = False
    # Clip augmentations in addition to resize, flip and crop: "brightness", "contrast", "saturation",
    # "rotation".
    cfg.INPUT.AUGMENTATIONS = []
    # Images become clips by random warps. Image datasets are recognised by their dicts and the frames of a
    # clip share one crop, so COCO_PRETRAIN and PRETRAIN_SAME_CROP exist for published files and have no
    # effect.
    cfg.INPUT.COCO_PRETRAIN = False
    cfg.INPUT.PRETRAIN_TYPE = "affine"
    cfg.INPUT.PRETRAIN_SAME_CROP = False

    # In which proportion clips come from each dataset of DATASETS.TRAIN, such as (3, 1). Empty: every video
    # and image is drawn equally often.
    cfg.DATASETS.TRAIN_RATIOS = ()

    cfg.MODEL.SeqFormer = CN()
    seqformer = cfg.MODEL.SeqFormer
    seqformer.NUM_CLASSES = 80
    seqformer.NUM_OBJECT_QUERIES = 300

    # Transformer (paper, section 4.2).
    seqformer.HIDDEN_DIM = 256
    seqformer.NHEADS = 8
    seqformer.DROPOUT = 0.1
    seqformer.DIM_FEEDFORWARD = 1024
    seqformer.ENC_LAYERS = 6
    seqformer.DEC_LAYERS = 6
    seqformer.ENC_N_POINTS = 4
    seqformer.DEC_N_POINTS = 4
    seqformer.NUM_FEATURE_LEVELS = 4

    # Compute encoder and decoder layers again in the backward pass instead of keeping their results: less
    # memory, more time.
    seqformer.GRADIENT_CHECKPOINTING = False
    # Sets of queries in training, each matched one to one on its own: more supervision per step
    # (Group DETR, Chen et al., ICCV 2023). Inference uses only the first set. 1: as published.
    seqformer.QUERY_GROUPS = 1

    # Loss weights and matching costs (paper, section 3.4).
    seqformer.MASK_WEIGHT = 2.0
    seqformer.DICE_WEIGHT = 5.0
    seqformer.GIOU_WEIGHT = 2.0
    seqformer.L1_WEIGHT = 5.0
    seqformer.CLASS_WEIGHT = 2.0
    seqformer.DEEP_SUPERVISION = True
    seqformer.MASK_STRIDE = 4
    seqformer.MATCH_STRIDE = 4
    seqformer.FOCAL_ALPHA = 0.25
    seqformer.SET_COST_CLASS = 2.0
    seqformer.SET_COST_BOX = 5.0
    seqformer.SET_COST_GIOU = 2.0

    # Inference.
    seqformer.MERGE_ON_CPU = True
    seqformer.MULTI_CLS_ON = True
    seqformer.APPLY_CLS_THRES = 0.05
    # Cut a video into clips of CLIP_LENGTH frames that begin every CLIP_STRIDE frames; otherwise it is one
    # clip.
    seqformer.CLIP_MATCHING = False
    seqformer.CLIP_LENGTH = 5
    seqformer.CLIP_STRIDE = 1
    # If above 0, it overrides CLIP_MATCHING: a video is one clip if decoding it takes at most so many GB (1e9
    # bytes, in addition to the model), and is cut into clips otherwise or if its length is not known, as with
    # a camera. The log says which, with the numbers. (CLIP_MATCHING itself cannot be "auto": a key has one
    # type, and published files have True and False.)
    seqformer.AUTO_MEMORY_GB = 0.0
    # The most instances that clip matching follows at a time. When the limit is reached, the least recently
    # seen are dropped, and among these the least probable; a dropped instance that comes back is a new one.
    # 0: those of the last CLIP_LENGTH clips, at most 10 of each, so 10 * CLIP_LENGTH. With MOTION_WEIGHT
    # those of the last MOTION_MEMORY clips if these are more, at most 20 of each.
    seqformer.MAX_LIVE_INSTANCES = 0
    # If the masks of two instances of a clip overlap by more than this IoU, the more probable one is kept,
    # and the next best query takes the place of the other. 1.0 keeps all, as published: two queries that
    # predict one object then follow it as two instances. With MOTION_WEIGHT, the one that continues an
    # instance is kept, and no new instance begins next to it.
    seqformer.DUPLICATE_IOU = 1.0
    # Clip matching by motion as well: its weight, from 0 (as published) to below 1, against the overlap of
    # masks in shared frames; and for how many clips a lost instance is looked for where its motion leads. For
    # clips of a few frames, in which instances that cross seem to change places.
    seqformer.MOTION_WEIGHT = 0.0
    seqformer.MOTION_MEMORY = 6
    # A pair that is less similar is not the same instance. An instance of a clip that is less probable is
    # left out. How much its probability adds to the similarity of a pair.
    seqformer.MOTION_LEAST_SIMILARITY = 0.2
    seqformer.MOTION_LEAST_PROBABILITY = 0.1
    seqformer.MOTION_PROBABILITY_WEIGHT = 0.3
    # If two instances are continued by masks whose IoU is higher, only one of them is.
    seqformer.MOTION_SAME_IOU = 0.9
    # A mask of fewer cells of 4x4 pixels does not tell where its instance is.
    seqformer.MOTION_LEAST_CELLS = 4
    # A lost instance is looked for around where its motion leads, at most so far away, as a fraction of the
    # longer side of its box.
    seqformer.MOTION_SEARCH_RADIUS = 0.4
    # Frames before the last one of an instance over which its velocity is fitted.
    seqformer.MOTION_WINDOW = 5
    # "queries": the 10 best queries, each with every class above the threshold. "pairs": the 10 best
    # (query, class) pairs, as in the original release.
    seqformer.RESULT_PROTOCOL = "queries"

    # Any timm model as a backbone (BACKBONE.NAME "build_timm_backbone").
    cfg.MODEL.TIMM = CN()
    cfg.MODEL.TIMM.NAME = "resnet50"
    cfg.MODEL.TIMM.PRETRAINED = False
    cfg.MODEL.TIMM.WEIGHTS = ""
    cfg.MODEL.TIMM.OUT_FEATURES = ["res3", "res4", "res5"]

    # Swin Transformer (BACKBONE.NAME "build_swin_backbone"); the defaults are Swin-T's.
    cfg.MODEL.SWIN = CN()
    swin = cfg.MODEL.SWIN
    swin.PRETRAIN_IMG_SIZE = 224
    swin.PATCH_SIZE = 4
    swin.EMBED_DIM = 96
    swin.DEPTHS = [2, 2, 6, 2]
    swin.NUM_HEADS = [3, 6, 12, 24]
    swin.WINDOW_SIZE = 7
    swin.MLP_RATIO = 4.0
    swin.QKV_BIAS = True
    swin.QK_SCALE = None
    swin.DROP_RATE = 0.0
    swin.ATTN_DROP_RATE = 0.0
    swin.DROP_PATH_RATE = 0.3
    swin.APE = False
    swin.PATCH_NORM = True
    swin.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    swin.USE_CHECKPOINT = False

    cfg.SOLVER.OPTIMIZER = "ADAMW"
    cfg.SOLVER.BACKBONE_MULTIPLIER = 0.1
    # "full_model" clips the gradient of all parameters together (CLIP_GRADIENTS.CLIP_TYPE).

    # Mixed precision (AMP.ENABLED) on GPUs: "float16", with scaled gradients, or "bfloat16". On a CPU it is
    # always bfloat16.
    cfg.SOLVER.AMP.DTYPE = "float16"
    # An exponential moving average of the weights, which evaluation uses if it is enabled.
    cfg.SOLVER.EMA = CN()
    cfg.SOLVER.EMA.ENABLED = False
    cfg.SOLVER.EMA.DECAY = 0.999

    # Steps from one line of metrics to the next; a line shows the medians over these steps.
    cfg.LOG_PERIOD = 20
    cfg.FIND_UNUSED_PARAMETERS = True


def load_config(config_file: str | Path, opts: Sequence[str] = ()) -> CN:
    """Reads a config file and overrides keys of it.

    A config that asks for CUDA gets the CPU if there is no CUDA device.

    Args:
        config_file: a YAML file, which may name others in ``_BASE_``.
        opts: ``KEY VALUE KEY VALUE ...``.

    Raises:
        InputError: if the file is missing or is not YAML, a key is unknown, or a value has the wrong type.
    """
    cfg = get_cfg()
    add_seqformer_config(cfg)
    path = Path(config_file)
    if not path.is_file():
        raise InputError(f"no config file '{path}'")
    try:
        cfg.merge_from_file(str(path))
    except (
        KeyError,
        ValueError,
        TypeError,
        AssertionError,
        AttributeError,
        OSError,
        yaml.YAMLError,
    ) as error:
        raise InputError(f"config file '{path}': {_one_line(error)}") from error
    if len(opts) % 2:
        raise InputError(f"options come as KEY VALUE pairs, but '{opts[-1]}' has no value")
    try:
        cfg.merge_from_list(list(opts))
    except (KeyError, ValueError, AssertionError, AttributeError) as error:
        raise InputError(f"options {' '.join(opts)}: {_one_line(error)}") from error
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    return cfg


def _one_line(error: Exception) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split()) or type(error).__name__
