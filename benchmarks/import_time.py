"""Seconds that importing the package takes, in addition to PyTorch and Detectron2.

    python benchmarks/import_time.py

Each run is a new process. The first of them warms the file cache and does not count.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

STEPS = {
    "torch": "import torch",
    "detectron2": "import detectron2.modeling",
    "seqformer": "from seqformer import SeqFormer, VideoPredictor, evaluate_ytvis, load_config",
}
PROGRAM = f"""
import json, time, warnings
warnings.simplefilter("ignore")
seconds = {{}}
for name, statement in {STEPS!r}.items():
    start = time.perf_counter()
    exec(statement)
    seconds[name] = time.perf_counter() - start
print(json.dumps(seconds))
"""


def measure() -> dict[str, float]:
    """Returns the seconds of each step, in a new process."""
    return json.loads(subprocess.check_output([sys.executable, "-c", PROGRAM], text=True))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5, help="runs that count (default: %(default)s)")
    args = parser.parse_args()
    measure()
    runs = [measure() for _ in range(args.repeats)]
    for name in STEPS:
        print(f"{name:10}  {statistics.median(run[name] for run in runs):.2f} s")


if __name__ == "__main__":
    main()
