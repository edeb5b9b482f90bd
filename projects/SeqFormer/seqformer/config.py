"""SeqFormer's configuration keys, added to Detectron2's defaults.

Names and defaults follow the published Detectron2-style SeqFormer configs, whose YAML files load unchanged.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from detectron2.config import CfgNode as CN
from detectron2.config import get_cfg
from detectron2.utils.file_io import PathManager
from fvcore.common.config import BASE_KEY

from seqformer.errors import InputError

__all__ = ["add_seqformer_config", "load_config"]

_logger = logging.getLogger(__name__)

_MOST_LEVELS = 100
_MOST_ALIASES = 20  # each can multiply what a YAML file says
_MOST_FILES = 100  # a file and its bases; a list of bases can multiply them
_LONGEST = 10**6  # characters of a file
_ADDRESSES = ("http://", "https://")


def add_seqformer_config(cfg: CN) -> None:
    """Adds SeqFormer's keys to ``cfg``, in place.

    Args:
        cfg: a Detectron2 config, usually ``detectron2.config.get_cfg()``.
    """
    # Frames of a training clip: a random reference frame and others near it.
    cfg.INPUT.SAMPLING_FRAME_NUM = 1  # frames in a clip
    cfg.INPUT.SAMPLING_FRAME_RANGE = 10  # greatest distance from the reference frame, in frames
    cfg.INPUT.SAMPLING_INTERVAL = 1  # distances from the reference are multiples of this many frames
    cfg.INPUT.SAMPLING_FRAME_SHUFFLE = False  # True shuffles the frames; False keeps their order in time
    # Augmentations after crop, flip and resize: any of "brightness", "contrast", "saturation", "rotation".
    cfg.INPUT.AUGMENTATIONS = []
    # Training on images turns each one into a clip of random warps; "affine" is the only type. COCO_PRETRAIN
    # and PRETRAIN_SAME_CROP have no effect; published config files set them.
    cfg.INPUT.COCO_PRETRAIN = False
    cfg.INPUT.PRETRAIN_TYPE = "affine"
    cfg.INPUT.PRETRAIN_SAME_CROP = False

    # Relative number of clips from each dataset in DATASETS.TRAIN, such as (3, 1). By default every video and
    # image is sampled equally often.
    cfg.DATASETS.TRAIN_RATIOS = ()

    cfg.MODEL.SeqFormer = CN()
    seqformer = cfg.MODEL.SeqFormer
    seqformer.NUM_CLASSES = 80
    seqformer.NUM_OBJECT_QUERIES = 300  # instance queries of a clip

    # Transformer (paper, section 4.2).
    seqformer.HIDDEN_DIM = 256  # a multiple of 32 and of NHEADS
    seqformer.NHEADS = 8
    seqformer.DROPOUT = 0.1
    seqformer.DIM_FEEDFORWARD = 1024
    seqformer.ENC_LAYERS = 6
    seqformer.DEC_LAYERS = 6
    seqformer.ENC_N_POINTS = 4  # sampling points per head and level
    seqformer.DEC_N_POINTS = 4
    seqformer.NUM_FEATURE_LEVELS = 4  # the backbone's 3, and coarser ones computed from them

    # Recompute encoder and decoder layers in the backward pass: less memory, more time.
    seqformer.GRADIENT_CHECKPOINTING = False
    # Groups of queries in training, each matched one to one on its own, for more supervision per step (Group
    # DETR, Chen et al., ICCV 2023). Inference uses only the first group. 1: as published.
    seqformer.QUERY_GROUPS = 1

    # Loss weights and matching costs (paper, section 3.4).
    seqformer.MASK_WEIGHT = 2.0  # focal loss of the masks
    seqformer.DICE_WEIGHT = 5.0
    seqformer.GIOU_WEIGHT = 2.0
    seqformer.L1_WEIGHT = 5.0
    seqformer.CLASS_WEIGHT = 2.0
    seqformer.DEEP_SUPERVISION = True  # losses on every decoder layer, not only the last
    # Above 0, masks are compared at this many points of every frame instead of in all cells: less memory with
    # many instances (PointRend, Kirillov et al., CVPR 2020). IMPORTANCE_SAMPLE_RATIO of them have logits near
    # zero, chosen among OVERSAMPLE_RATIO times as many.
    seqformer.TRAIN_NUM_POINTS = 0
    seqformer.OVERSAMPLE_RATIO = 3.0
    seqformer.IMPORTANCE_SAMPLE_RATIO = 0.75
    seqformer.MASK_STRIDE = 4  # pixels; both strides must be 4, the stride of the masks
    seqformer.MATCH_STRIDE = 4
    seqformer.FOCAL_ALPHA = 0.25
    seqformer.SET_COST_CLASS = 2.0
    seqformer.SET_COST_BOX = 5.0
    seqformer.SET_COST_GIOU = 2.0

    # Inference.
    # "fp32", "bf16" (processors with AVX512_BF16 or AMX, GPUs), "fp16" (GPUs) or "int8" (processors): how the
    # network computes, in prediction and with --eval-only. Training does not use it; see SOLVER.AMP.
    seqformer.PRECISION = "fp32"
    seqformer.MERGE_ON_CPU = True  # keep the masks of clips in main memory instead of on the GPU
    seqformer.MULTI_CLS_ON = True  # every class above the threshold is a result, not only the best one
    seqformer.APPLY_CLS_THRES = 0.05  # lowest class probability of a result
    # False: a video is one clip. True: clips of CLIP_LENGTH frames start every CLIP_STRIDE frames, and their
    # instances are matched.
    seqformer.CLIP_MATCHING = False
    seqformer.CLIP_LENGTH = 5
    seqformer.CLIP_STRIDE = 1
    # Above 0 this overrides CLIP_MATCHING: a video is one clip if its encoded frames and masks need at most
    # this many GB (1e9 bytes) in addition to the model. Otherwise, or if its length is unknown (a camera), it
    # is cut into clips. The log gives the decision and the numbers. (CLIP_MATCHING itself cannot be "auto": a
    # key has one type, and published files set True or False.)
    seqformer.AUTO_MEMORY_GB = 0.0
    # Most instances that clip matching keeps active. Above the limit, the least recently visible are dropped,
    # and among these the least probable; a dropped instance that reappears gets a new id. 0 sets no further
    # limit: all instances of the last CLIP_LENGTH clips stay active, at most 10 * CLIP_LENGTH. With
    # MOTION_WEIGHT these are the last MOTION_MEMORY clips if that is more, and a clip has up to 20 instances.
    seqformer.MAX_LIVE_INSTANCES = 0
    # IoU threshold for duplicates: of a clip's instances whose masks overlap more than this, only the most
    # probable is kept, and the next best queries replace the others. 1.0 keeps all, as published, so two
    # queries on one object become two tracklets. With MOTION_WEIGHT, an instance that continues a tracklet is
    # kept, and none that duplicates it starts a new one.
    seqformer.DUPLICATE_IOU = 1.0
    # Clip matching by motion: the share of motion in the similarity of a pair, from 0 (overlap alone, as
    # published) to below 1. It helps with clips of a few frames, where crossing people seem to swap places.
    seqformer.MOTION_WEIGHT = 0.0
    # For how many clips a lost instance is searched for along its predicted path.
    seqformer.MOTION_MEMORY = 6
    # Lowest similarity of a pair that counts as the same instance, from 0 to 1.
    seqformer.MOTION_LEAST_SIMILARITY = 0.2
    # Lowest class probability of an instance of a clip; less probable ones are ignored.
    seqformer.MOTION_LEAST_PROBABILITY = 0.1
    # How much the class probability of an instance adds to the similarity of a pair.
    seqformer.MOTION_PROBABILITY_WEIGHT = 0.3
    # IoU threshold above which two masks that continue different instances are duplicates; one is dropped.
    seqformer.MOTION_SAME_IOU = 0.9
    # A mask with fewer cells of 4x4 pixels is too small to locate its instance.
    seqformer.MOTION_LEAST_CELLS = 4
    # Greatest distance of a lost instance from its predicted place, in units of the longer side of its box.
    seqformer.MOTION_SEARCH_RADIUS = 0.4
    # Number of last frames over which an instance's velocity is fitted.
    seqformer.MOTION_WINDOW = 5
    # "queries": the 10 best queries, each with every class above the threshold. "pairs": the 10 best
    # (query, class) pairs. "original": everything as in the original release, for its weights: frames are
    # resized to MIN_SIZE_TEST (the longer side is rounded down, MAX_SIZE_TEST is not used) and not padded,
    # the 10 best pairs are the results, masks are resized straight to the size of the video, and results
    # without a mask are left out.
    seqformer.RESULT_PROTOCOL = "queries"
    # True: an instance that has no mask in any frame is a result, as published. It counts as false in AP.
    seqformer.KEEP_EMPTY = False

    # Any timm model as a backbone (BACKBONE.NAME "build_timm_backbone").
    cfg.MODEL.TIMM = CN()
    cfg.MODEL.TIMM.NAME = "resnet50"
    cfg.MODEL.TIMM.PRETRAINED = False  # let timm download its weights
    cfg.MODEL.TIMM.WEIGHTS = ""  # a file with the model's weights, .pth or .safetensors
    cfg.MODEL.TIMM.OUT_FEATURES = ["res3", "res4", "res5"]

    # Swin Transformer (BACKBONE.NAME "build_swin_backbone"). The defaults are Swin-T.
    cfg.MODEL.SWIN = CN()
    swin = cfg.MODEL.SWIN
    swin.PRETRAIN_IMG_SIZE = 224  # pixels
    swin.PATCH_SIZE = 4  # pixels
    swin.EMBED_DIM = 96
    swin.DEPTHS = [2, 2, 6, 2]
    swin.NUM_HEADS = [3, 6, 12, 24]
    swin.WINDOW_SIZE = 7  # patches
    swin.MLP_RATIO = 4.0
    swin.QKV_BIAS = True
    swin.QK_SCALE = None  # None: 1 / sqrt(width of a head)
    swin.DROP_RATE = 0.0
    swin.ATTN_DROP_RATE = 0.0
    swin.DROP_PATH_RATE = 0.3
    swin.APE = False  # absolute position embedding
    swin.PATCH_NORM = True
    swin.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    swin.USE_CHECKPOINT = False  # recompute blocks in the backward pass: less memory, more time

    cfg.SOLVER.OPTIMIZER = "ADAMW"  # or "SGD", or "MUON" (linear layers; AdamW for all others)
    cfg.SOLVER.MUON = CN()
    cfg.SOLVER.MUON.ADAMW_FACTOR = 0.33  # AdamW's learning rate, relative to BASE_LR
    cfg.SOLVER.BACKBONE_MULTIPLIER = 0.1  # the backbone's learning rate, relative to BASE_LR
    # Detectron2's CLIP_GRADIENTS.CLIP_TYPE may also be "full_model": the norm of all gradients together.

    # Mixed precision on GPUs (AMP.ENABLED): "float16", with gradient scaling, or "bfloat16". CPUs always use
    # bfloat16.
    cfg.SOLVER.AMP.DTYPE = "float16"
    # Evaluate an exponential moving average of the weights.
    cfg.SOLVER.EMA = CN()
    cfg.SOLVER.EMA.ENABLED = False
    cfg.SOLVER.EMA.DECAY = 0.999

    # Evaluation also computes HOTA, MOTA and IDF1. Results with scores below the threshold are left out of
    # these and of ID switches, but not of AP.
    cfg.TEST.TRACKING_METRICS = False
    cfg.TEST.TRACKING_SCORE_THRESHOLD = 0.0

    # Steps between two lines of metrics; a line shows medians over these steps.
    cfg.LOG_PERIOD = 20
    # Experiment trackers that get the metrics as well: "wandb", "mlflow".
    cfg.LOG_WRITERS = ()
    # Training on several processes tolerates parameters without a gradient; the published network has some.
    cfg.FIND_UNUSED_PARAMETERS = True


def load_config(config_file: str | Path, opts: Sequence[str] = ()) -> CN:
    """Reads a config file and overrides some of its keys.

    If no GPU is available, a config whose MODEL.DEVICE is CUDA (the default) runs on the CPU, and says so in
    the log. In ``opts`` it is an error.

    Args:
        config_file: a YAML file. Its ``_BASE_`` may name another one.
        opts: ``KEY VALUE KEY VALUE ...``.

    Raises:
        InputError: if the file is missing, not YAML or would execute code, a key is unknown, or a value has
            the wrong type; if ``opts`` ask for a GPU and there is none.
    """
    path = Path(config_file)
    if not path.is_file():
        raise InputError(f"no config file '{path}'")
    return _build(lambda cfg: _merge_file(cfg, path), f"config file '{path}'", opts)


def config_from_values(values: Mapping[str, Any], source: str, opts: Sequence[str] = ()) -> CN:
    """Returns a config with the given values, like :func:`load_config`.

    Args:
        values: values by key, nested.
        source: where the values are from, for messages.
        opts: ``KEY VALUE KEY VALUE ...``.

    Raises:
        InputError: if a key is unknown, or a value has the wrong type.
    """
    return _build(lambda cfg: cfg.merge_from_other_cfg(CN(dict(values))), source, opts)


def _build(merge: Callable[[CN], None], source: str, opts: Sequence[str]) -> CN:
    cfg = get_cfg()
    add_seqformer_config(cfg)
    default = cfg.clone()
    try:
        merge(cfg)
        _check_values(default, cfg)
    except (
        RecursionError,
        KeyError,
        ValueError,
        TypeError,
        AssertionError,
        AttributeError,
        OSError,
        yaml.YAMLError,
    ) as error:
        raise InputError(f"{source}: {_one_line(error)}") from error
    if len(opts) % 2:
        raise InputError(f"options must be KEY VALUE pairs, but '{opts[-1]}' has no value")
    try:
        cfg.merge_from_list(list(opts))
        _check_values(default, cfg)
    except (KeyError, ValueError, AssertionError, AttributeError) as error:
        raise InputError(f"options {' '.join(opts)}: {_one_line(error)}") from error
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        if "MODEL.DEVICE" in opts[::2]:
            raise InputError(
                f"MODEL.DEVICE '{cfg.MODEL.DEVICE}' cannot be used: PyTorch {torch.__version__} finds no GPU "
                "(cpu works everywhere)"
            )
        _logger.info("no GPU is available: MODEL.DEVICE is cpu instead of %s", cfg.MODEL.DEVICE)
        cfg.MODEL.DEVICE = "cpu"
    return cfg


def _check_values(default: CN, cfg: CN, prefix: str = "") -> None:
    """Checks that no key has lost its value, which merging permits.

    Raises:
        ValueError: if one has.
    """
    for key, value in default.items():
        if value is not None and cfg.get(key) is None:
            raise ValueError(f"{prefix}{key} has no value (null)")
        if isinstance(value, CN):
            _check_values(value, cfg[key], f"{prefix}{key}.")


def _merge_file(cfg: CN, path: Path) -> None:
    """Merges a YAML file and its bases. Tags that would execute code are errors of the file."""
    _check_bases(str(path), (), itertools.count(1))
    cfg.merge_from_file(str(path), allow_unsafe=False)


def _check_bases(name: str, chain: tuple[str, ...], numbers: Iterator[int]) -> None:
    """Checks a YAML file and its bases before they are merged.

    Args:
        name: the file or address.
        chain: the files that lead to it.
        numbers: counts the files.

    Raises:
        ValueError: if one takes too much memory or time, or is its own base.
    """
    real = name if name.startswith(_ADDRESSES) else os.path.realpath(name)
    if real in chain:
        raise ValueError(f"'{name}' is its own _BASE_")
    if next(numbers) > _MOST_FILES:
        raise ValueError(f"more than {_MOST_FILES} files by _BASE_")
    with PathManager.open(name, encoding="utf-8") as file:
        text = file.read(_LONGEST + 1)
    where = f"'{name}': " if chain else ""
    if len(text) > _LONGEST:
        raise ValueError(f"{where}longer than {_LONGEST} characters")
    aliases = depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        aliases += isinstance(event, yaml.AliasEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MOST_LEVELS:  # parsing takes time in proportion to the square of the depth
            raise ValueError(f"{where}nested deeper than {_MOST_LEVELS} levels")
    if aliases > _MOST_ALIASES:
        raise ValueError(f"{where}{aliases} aliases (*name), more than {_MOST_ALIASES}")
    values = yaml.safe_load(text)
    bases = values.get(BASE_KEY, []) if isinstance(values, dict) else []
    for base in bases if isinstance(bases, list) else [bases]:
        if not isinstance(base, str):
            raise ValueError(f"{where}_BASE_ must be a file name or a list of them")
        base = os.path.expanduser(base)
        if not base.startswith(_ADDRESSES):
            base = os.path.join(os.path.dirname(name), base)
        _check_bases(base, (*chain, real), numbers)


def _one_line(error: Exception) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split()) or type(error).__name__
