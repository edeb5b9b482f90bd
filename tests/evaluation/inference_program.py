"""The program of the test of several processes: the toy model on a toy dataset, in Detectron2's loop.

``torchrun --nproc_per_node 2 inference_program.py JSON FRAMES OUTPUT``, or with python as one process.
"""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from pathlib import Path

import torch
from detectron2.evaluation import inference_on_dataset
from detectron2.modeling import build_model
from detectron2.utils import comm

from seqformer.config import load_config
from seqformer.data import build_test_loader, resolve_datasets
from seqformer.engine import started_by_torchrun, torchrun_processes
from seqformer.evaluation import YTVISEvaluator

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "toy" / "seqformer_toy.yaml"
SMALL = ["MODEL.DEVICE", "cpu", "INPUT.MIN_SIZE_TEST", "48", "DATALOADER.NUM_WORKERS", "0"]
# Untrained weights predict nothing with a probability above the usual threshold.
EVERYTHING = ["MODEL.SeqFormer.APPLY_CLS_THRES", "0.0"]


def main(json_file: str, frames: str, output: str) -> None:
    torch.set_num_threads(1)
    (name,) = resolve_datasets([f"ytvis:{json_file}:{frames}"])
    cfg = load_config(CONFIG, SMALL + EVERYTHING)
    torch.manual_seed(0)
    model = build_model(cfg)
    figures = inference_on_dataset(model, build_test_loader(cfg, name), YTVISEvaluator(name, output))
    # In one piece: print may write the end of the line after the other process's line.
    os.write(1, f"process {comm.get_rank()} of {comm.get_world_size()}: {sorted(figures)}\n".encode())


if __name__ == "__main__":
    with torchrun_processes(on_cuda=False) if started_by_torchrun() else nullcontext():
        main(*sys.argv[1:])
