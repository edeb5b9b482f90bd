"""Results are evaluated where neither PyTorch nor Detectron2 is installed."""

from __future__ import annotations

import subprocess
import sys

import pytest

import seqformer.evaluation

BLOCKED = """
import sys
sys.modules.update(dict.fromkeys(["torch", "torchvision", "detectron2", "cv2", "av", "matplotlib"]))
"""
EVALUATION = """
from seqformer.evaluation import count_id_switches, evaluate_ytvis
rle = {"size": [2, 2], "counts": "04"}
entry = {"video_id": 1, "category_id": 1, "segmentations": [rle]}
gt = {
    "videos": [{"id": 1, "height": 2, "width": 2, "file_names": ["0.jpg"]}],
    "categories": [{"id": 1, "name": "person"}],
    "annotations": [{"id": 1, "iscrowd": 0, **entry}],
}
results = [{"score": 0.5, **entry}]
print(round(evaluate_ytvis(gt, results)["AP"]), count_id_switches(gt, results).switches)
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", BLOCKED + program], capture_output=True, text=True)


def test_metrics_without_torch_and_detectron2() -> None:
    assert run(EVALUATION).stdout == "100 0\n", run(EVALUATION).stderr


def test_the_evaluator_needs_them() -> None:
    done = run("from seqformer.evaluation import YTVISEvaluator")
    assert done.returncode == 1 and "torch" in done.stderr
    assert seqformer.evaluation.YTVISEvaluator.__name__ == "YTVISEvaluator"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = seqformer.evaluation.nothing
