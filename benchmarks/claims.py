"""Tests the paper's claims: trains variants of a model with equal budgets and prints one table.

    python -m seqformer.data.toy datasets/toy --train 200 --val 40
    python benchmarks/claims.py --config-file configs/toy/seqformer_toy.yaml --output claims \\
        --variants full shared uniform frame-by-frame --seeds 1 2 3 --options SOLVER.MAX_ITER 1500

Variants:
    full            the config as it is
    shared          one box query for all frames instead of one per frame
    uniform         all frames have the same temporal weight instead of learned ones
    frame-by-frame  trained and tested on single frames, whose instances are linked by mask IoU
    frames-N        clips of N frames in training

--protocols evaluates every training several times: "whole" videos, or clips "LENGTH/STRIDE" that are matched.
Trainings that have ended are not repeated, and one that was stopped is resumed, so the command can be
stopped and given again. The options go to all trainings.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import seqformer  # noqa: F401  before Detectron2, to hide one of its warnings

# isort: split
import numpy as np
from detectron2.config import CfgNode
from detectron2.utils.logger import setup_logger
from pycocotools import mask as mask_api
from scipy.optimize import linear_sum_assignment
from tabulate import tabulate
from torch import nn

from seqformer import SeqFormer
from seqformer.config import load_config
from seqformer.data import resolve_datasets
from seqformer.engine import Trainer, keep_freed_memory
from seqformer.errors import InputError, exit_on_bad_input
from seqformer.evaluation import YTVISEvaluator
from seqformer.formats.files import read_json, write_json
from seqformer.structures import RLE, Tracklet, VideoResult

_IOU_THRESHOLD = 0.1  # of masks in successive frames that are linked
_MEMORY = 6  # frames without a mask after which an instance is not continued
_FIGURES = ("AP", "AP50", "AR10", "id_switches")


def share_box_queries(model: SeqFormer) -> None:
    """Replaces the box queries of the frames by their mean after each decoder layer."""
    for layer in model.network.detr.transformer.decoder.layers:
        layer.register_forward_hook(
            lambda _, __, output: (output[0], output[1].mean(1, keepdim=True), output[2])
        )


def fix_temporal_weights(model: SeqFormer) -> None:
    """Makes the temporal weights of all frames equal, and keeps them so in training."""
    for layer in model.network.detr.transformer.decoder.layers:
        for parameter in layer.time_attention_weights.parameters():
            nn.init.zeros_(parameter)
            parameter.requires_grad_(False)


@dataclass
class _Linked:
    """An instance that is linked from frame to frame."""

    last_frame: int
    mask: RLE  # the last one
    segmentations: list[RLE | None]
    scores: dict[int, float] = field(default_factory=lambda: defaultdict(float))  # sums, by class


class FrameByFrame(nn.Module):
    """Segments every frame alone and links instances of successive frames by mask IoU, one to one.

    The score of a class is its mean over the frames in which the instance is predicted.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Returns the ``video_result`` of one video."""
        (video,) = batched_inputs
        length = len(video["image"])
        linked: list[_Linked] = []
        for t, image in enumerate(video["image"]):
            result = self.model([{**video, "image": [image]}])["video_result"]
            instances: dict[int, list[Tracklet]] = defaultdict(list)
            for tracklet in result.tracklets:
                if tracklet.segmentations[0] is not None:
                    instances[tracklet.instance_id].append(tracklet)
            self._link(linked, list(instances.values()), t, length)
        tracklets = []
        for number, instance in enumerate(linked):
            frames = sum(mask is not None for mask in instance.segmentations)
            for label, score in instance.scores.items():
                tracklets.append(
                    Tracklet(number, label, score / frames, instance.segmentations, size=_size(result))
                )
        return {"video_result": VideoResult(*_size(result), length, tracklets)}

    @staticmethod
    def _link(linked: list[_Linked], instances: list[list[Tracklet]], t: int, length: int) -> None:
        masks = [tracklets[0].segmentations[0] for tracklets in instances]
        active = [i for i, instance in enumerate(linked) if t - instance.last_frame <= _MEMORY]
        pairs: dict[int, int] = {}
        if masks and active:
            iou = mask_api.iou(masks, [linked[i].mask for i in active], [0] * len(active))
            for row, column in zip(*linear_sum_assignment(-iou), strict=True):
                if iou[row, column] >= _IOU_THRESHOLD:
                    pairs[row] = active[column]
        for row, (mask, tracklets) in enumerate(zip(masks, instances, strict=True)):
            if row not in pairs:
                pairs[row] = len(linked)
                linked.append(_Linked(t, mask, [None] * length))
            instance = linked[pairs[row]]
            instance.last_frame, instance.mask, instance.segmentations[t] = t, mask, mask
            for tracklet in tracklets:
                instance.scores[tracklet.label] += tracklet.score


def _size(result: VideoResult) -> tuple[int, int]:
    return result.height, result.width


@dataclass(frozen=True)
class Variant:
    """What is different from the config: options, the built model, and the model that is evaluated."""

    options: tuple[str, ...] = ()
    change: Callable[[SeqFormer], None] = lambda _: None
    evaluated: Callable[[nn.Module], nn.Module] = lambda model: model


def variant(name: str) -> Variant:
    """Returns the variant of a name.

    Raises:
        InputError: if there is none.
    """
    if number := re.fullmatch(r"frames-([1-9]\d*)", name):
        return Variant(("INPUT.SAMPLING_FRAME_NUM", number[1]))
    known = {
        "full": Variant(),
        "shared": Variant(change=share_box_queries),
        "uniform": Variant(change=fix_temporal_weights),
        "frame-by-frame": Variant(("INPUT.SAMPLING_FRAME_NUM", "1"), evaluated=FrameByFrame),
    }
    if name not in known:
        raise InputError(f"no variant '{name}': choose from {', '.join(known)} and frames-N")
    return known[name]


def clip_options(protocol: str) -> dict[str, Any]:
    """Returns the inference options of "whole" or "LENGTH/STRIDE".

    Raises:
        InputError: if the protocol is neither.
    """
    if protocol == "whole":
        return {"clip_matching": False, "auto_memory_gb": 0.0}
    if clips := re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", protocol):
        length, stride = map(int, clips.groups())
        return {"clip_matching": True, "auto_memory_gb": 0.0, "clip_length": length, "clip_stride": stride}
    raise InputError(f"--protocols {protocol}: must be whole or LENGTH/STRIDE, such as 10/5")


def train(cfg: CfgNode, chosen: Variant) -> nn.Module:
    """Trains a variant, or resumes its training, and returns the model with the weights to evaluate."""

    class VariantTrainer(Trainer):
        @classmethod
        def build_model(cls, cfg: CfgNode) -> Any:
            model = super().build_model(cfg)
            chosen.change(model)
            return model

    trainer = VariantTrainer(cfg, YTVISEvaluator)
    trainer.resume_or_load(resume=True)
    trainer.train()
    return trainer.evaluated_model.eval()


def evaluate(cfg: CfgNode, model: SeqFormer, chosen: Variant, protocol: str) -> dict[str, dict[str, float]]:
    """Returns the figures of every dataset in DATASETS.TEST."""
    options = model.options
    model.options = replace(options, **clip_options(protocol))
    figures = {}
    for name in cfg.DATASETS.TEST:
        alone = cfg.clone()
        alone.defrost()
        alone.DATASETS.TEST = (name,)
        metrics = Trainer.test(alone, chosen.evaluated(model), [YTVISEvaluator(name)])["segm"]
        figures[name] = {figure: float(metrics[figure]) for figure in _FIGURES}
    model.options = options
    return figures


def table(done: dict[tuple[str, str, str], list[dict[str, float]]]) -> str:
    """Returns a Markdown table of means over seeds, with the lowest and the highest in brackets."""
    rows = []
    for (name, protocol, dataset), runs in done.items():
        row = [name, protocol, dataset, str(len(runs))]
        for figure in _FIGURES:
            values = np.array([run[figure] for run in runs])
            spread = f" ({values.min():.1f} to {values.max():.1f})" if len(runs) > 1 else ""
            row.append(f"{values.mean():.1f}{spread}")
        rows.append(row)
    header = ["variant", "protocol", "dataset", "trainings", "AP", "AP50", "AR10", "ID switches"]
    return tabulate(rows, header, "pipe", disable_numparse=True)


def run(args: argparse.Namespace) -> None:
    chosen = {name: variant(name) for name in args.variants}
    for protocol in args.protocols:
        clip_options(protocol)
    done: dict[tuple[str, str, str], list[dict[str, float]]] = defaultdict(list)
    setup_logger(args.output, name="detectron2")
    keep_freed_memory()
    for seed in args.seeds:
        for name, own in chosen.items():
            folder = Path(args.output, f"{name}_{seed}")
            folder.mkdir(parents=True, exist_ok=True)
            options = [*args.options, *own.options, "SEED", str(seed), "OUTPUT_DIR", str(folder)]
            cfg = load_config(args.config_file, options)
            cfg.DATASETS.TRAIN = resolve_datasets(cfg.DATASETS.TRAIN)
            cfg.DATASETS.TEST = resolve_datasets(cfg.DATASETS.TEST)
            cfg.TEST.EVAL_PERIOD = 0
            path = folder / "figures.json"
            figures = read_json(path) if path.is_file() else {}
            missing = [protocol for protocol in args.protocols if protocol not in figures]
            if missing:
                model = train(without_final_evaluation(cfg), own)
                for protocol in missing:
                    figures[protocol] = evaluate(cfg, model, own, protocol)
                    write_json(path, figures)
            for protocol in args.protocols:
                for dataset, values in figures[protocol].items():
                    done[name, protocol, dataset].append(values)
            print(f"\n{table(done)}\n", flush=True)


def without_final_evaluation(cfg: CfgNode) -> CfgNode:
    """Returns the config without datasets to evaluate on: a training then ends without evaluating."""
    cfg = cfg.clone()
    cfg.DATASETS.TEST = ()
    return cfg


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE")
    parser.add_argument("--variants", nargs="+", default=["full"], metavar="NAME")
    parser.add_argument("--protocols", nargs="+", default=["whole"], metavar="PROTOCOL")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1], metavar="SEED")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="folder for all trainings")
    parser.add_argument("--options", nargs="*", default=[], metavar="KEY VALUE", help="config overrides")
    with exit_on_bad_input():
        run(parser.parse_args(argv))


if __name__ == "__main__":
    main()
