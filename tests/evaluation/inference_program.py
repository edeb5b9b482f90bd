"""What the test of several processes runs: the toy model on a toy dataset, with Detectron2's loop.

``torchrun --nproc_per_node 2 inference_program.py JSON FRAMES OUTPUT``, or with python as one process.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from detectron2.evaluation import inference_on_dataset
from detectron2.modeling import build_model
from detectron2.utils import comm

from seqformer.config import load_config
from seqformer.data import build_test_loader, resolve_datasets
from seqformer.evaluation import YTVISEvaluator

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "toy" / "seqformer_toy.yaml"
SMALL = ["MODEL.DEVICE", "cpu", "INPUT.MIN_SIZE_TEST", "48", "DATALOADER.NUM_WORKERS", "0"]
# Untrained weights find nothing with a probability above the usual threshold.
EVERYTHING = ["MODEL.SeqFormer.APPLY_CLS_THRES", "0.0"]


def main(json_file: str, frames: str, output: str) -> None:
    torch.set_num_threads(1)
    if "WORLD_SIZE" in os.environ:
        torch.distributed.init_process_group("gloo")
        comm.create_local_process_group(comm.get_world_size())
    (name,) = resolve_datasets([f"ytvis:{json_file}:{frames}"])
    cfg = load_config(CONFIG, SMALL + EVERYTHING)
    torch.manual_seed(0)
    model = build_model(cfg)
    figures = inference_on_dataset(model, build_test_loader(cfg, name), YTVISEvaluator(name, output))
    print(f"process {comm.get_rank()} of {comm.get_world_size()}: {sorted(figures)}", flush=True)
    if comm.get_world_size() > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
