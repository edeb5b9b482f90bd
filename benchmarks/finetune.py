"""Fine-tunes from several models for the same time on the same data, and prints one table.

    python benchmarks/finetune.py data.json frames --val val.json frames --minutes 60 --output starts \\
        --starts pedestrians/seqformer_effnet_lite0 imagenet photo.safetensors \\
        --options MODEL.TIMM.WEIGHTS effnet_lite0.safetensors

Each training is one run of `seqformer train --finetune`, one after the other, in a folder of its own under
--output. Runs that have ended are not repeated, so that the command can be stopped and given again. The
options go to all runs. For figures to compare, nothing else must use the machine.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

from tabulate import tabulate

from seqformer.errors import InputError, exit_on_bad_input
from seqformer.formats.files import read_json

_COLUMNS = ("AP", "AP50", "AP75", "AR10", "AR100")
_COMMAND = "from seqformer.cli.main import main; main()"


def train(args: argparse.Namespace, start: str, folder: Path) -> None:
    """Runs one training, with its output next to the folder.

    Raises:
        InputError: if it fails.
    """
    command = [
        "train",
        "--finetune",
        start,
        *args.data,
        "--output",
        str(folder),
        "--minutes",
        str(args.minutes),
    ]
    command += ["--val", *args.val] if args.val else []
    log = folder.with_suffix(".log")
    print(f"{start}: {args.minutes:g} min, output in {log}", flush=True)
    with log.open("w", encoding="utf-8") as file:
        code = subprocess.call(
            [sys.executable, "-c", _COMMAND, *command, *args.options], stdout=file, stderr=subprocess.STDOUT
        )
    if code:
        raise InputError(f"the training from '{start}' failed with exit code {code}: see '{log}'")


def row(start: str, folder: Path) -> list[str]:
    """Returns the line of the table for an evaluated training."""
    evaluation = read_json(folder / "evaluation.json")
    figures, ids = evaluation["after"]["class_averaged"], evaluation["after"]["id_switches"]
    config = (folder / "config.yaml").read_text(encoding="utf-8")
    size, steps, batch = (
        re.search(rf"^  {key}: (\d+)$", config, re.MULTILINE)[1]
        for key in ("MIN_SIZE_TEST", "MAX_ITER", "IMS_PER_BATCH")
    )
    numbers = ["-" if figures[name] is None else f"{figures[name]:.1f}" for name in _COLUMNS]
    found = f"{ids['covered']} of {ids['instances']}"
    return [start, *numbers, found, str(ids["switches"]), size, f"{steps} x {batch}"]


def run(args: argparse.Namespace) -> None:
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    rows = []
    for start in args.starts:
        folder = output / re.sub(r"[^\w.-]", "_", start)
        if not (folder / "evaluation.json").is_file():
            train(args, start, folder)
        rows.append(row(start, folder))
        header = ["start", *_COLUMNS, "found", "ID switches", "short side", "steps x clips"]
        print(f"\n{tabulate(rows, header, 'pipe', disable_numparse=True)}\n", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs=2, metavar=("JSON", "FRAMES"), help="training data")
    parser.add_argument("--val", nargs=2, metavar=("JSON", "FRAMES"), help="data to evaluate on")
    parser.add_argument("--starts", nargs="+", required=True, metavar="MODEL", help="as of --finetune")
    parser.add_argument("--minutes", type=float, default=60, help="time of each (default: %(default)g)")
    parser.add_argument("--output", required=True, help="folder for all trainings")
    parser.add_argument("--options", nargs="*", default=[], metavar="KEY VALUE", help="config overrides")
    arguments = parser.parse_args()
    with exit_on_bad_input():
        run(arguments)
