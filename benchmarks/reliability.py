"""Kills runs at random moments and checks what is left, and runs long jobs and watches what they take.

    python benchmarks/reliability.py training --times 50     # SIGKILL, then --resume, until the training ends
    python benchmarks/reliability.py evaluation --times 50   # SIGKILL of train --eval-only, then again
    python benchmarks/reliability.py predict --times 50      # SIGKILL of seqformer predict, then again
    python benchmarks/reliability.py streaming --times 50    # SIGKILL of predict --streaming, then --resume
    python benchmarks/reliability.py frames --times 20000    # frames of one streamed video
    python benchmarks/reliability.py videos --times 2000     # short videos in one command
    python benchmarks/reliability.py repeated --times 2      # trainings, with one thread and with two

After each kill every file with a final name must be whole. In the end results (for training: losses and
weights) must equal those of an uninterrupted run. The model is a tiny one with random weights. --seed repeats
the moments.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import psutil
import torch
from detectron2.modeling import build_model

from seqformer.checkpoints import read_checkpoint, write_state
from seqformer.config import load_config
from seqformer.data.toy import make_toy_dataset
from seqformer.errors import exit_on_bad_input

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs/toy/seqformer_toy.yaml"
SMALL = [
    "MODEL.SeqFormer.APPLY_CLS_THRES",
    "0.005",
    "MODEL.SeqFormer.CLIP_LENGTH",
    "3",
    "MODEL.DEVICE",
    "cpu",
]
SMALL += ["INPUT.MIN_SIZE_TEST", "48"]


class Failure(Exception):
    """What was lost."""


def killed_after(command: list[str], seconds: float) -> bool:
    """Runs a command, and kills it after a time. Returns whether it was killed.

    Raises:
        Failure: if it ended by itself with an error.
    """
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        process.communicate()
        return True
    if process.returncode:
        raise Failure(f"exit code {process.returncode}: {errors.strip().splitlines()[-1]}")
    return False


def duration(command: list[str]) -> float:
    start = time.monotonic()
    killed_after(command, 3600)
    return time.monotonic() - start


def check_whole(folder: Path) -> None:
    """Checks that every file with a final name can be read.

    Raises:
        Failure: if one cannot.
    """
    for path in folder.rglob("*"):
        try:
            if path.suffix == ".pth" and ".partial" not in path.name:
                read_checkpoint(path)
            elif path.suffix == ".json" and path.name != "metrics.json":
                json.loads(path.read_text())
            elif path.suffix == ".mp4":
                with av.open(str(path)) as container:
                    next(container.decode(video=0))
        except Exception as error:
            raise Failure(f"{path.name} is broken: {error}") from error


def content(folder: Path) -> dict[str, bytes]:
    """Returns videos and results."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.suffix == ".mp4" or path.name.endswith(("out.json", "results.json"))
    }


def training_content(folder: Path) -> tuple[dict[int, float], dict[str, torch.Tensor]]:
    """Returns the losses of each step, and the weights.

    Raises:
        Failure: if a step was repeated with another loss.
    """
    losses: dict[int, float] = {}
    for line in (folder / "metrics.json").read_text().splitlines():
        try:
            metrics = json.loads(line)
        except json.JSONDecodeError:  # the line that was being written when the training was killed
            continue
        if "total_loss" in metrics:
            before = losses.setdefault(metrics["iteration"], metrics["total_loss"])
            if before != metrics["total_loss"]:
                raise Failure(f"step {metrics['iteration']} was repeated with another loss")
    return losses, read_checkpoint(folder / "model_final.pth")["model"]


def same(first: object, second: object) -> bool:
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, tuple) and isinstance(second, tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second


def kill_until(
    times: int,
    folder: Path,
    command: Callable[[Path, bool], list[str]],
    read: Callable[[Path], object],
    resumable: bool,
) -> str:
    """Kills a job at random moments until it was killed ``times`` times.

    Args:
        times: number of kills.
        folder: for all outputs.
        command: the command for an output folder, and whether to resume.
        read: reads what must equal an uninterrupted run's.
        resumable: whether a killed job continues; otherwise it starts again.
    """
    whole = folder / "whole"
    whole.mkdir(parents=True)
    seconds = duration(command(whole, False))
    expected = read(whole)
    if not expected:
        raise Failure("an uninterrupted run has no results")
    kills = jobs = 0
    while kills < times:
        output = folder / f"job{jobs}"
        output.mkdir()
        jobs += 1
        begun = False
        while killed_after(command(output, begun), random.uniform(0, 1.1 * seconds)):
            kills += 1
            check_whole(output)
            begun = resumable
            print(f"\r{kills} kills", end="", file=sys.stderr, flush=True)
        if not same(read(output), expected):
            raise Failure(f"{output} differs from the uninterrupted run")
        shutil.rmtree(output)
    return f"killed {kills} times in {jobs} jobs of {seconds:.0f} s; nothing was lost, results are equal"


def encode(path: Path, frames: int, size: tuple[int, int] = (64, 48)) -> Path:
    """Writes a video of moving noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 255, (size[1], 4 * size[0], 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height = size
        for t in range(frames):
            image = np.ascontiguousarray(np.roll(noise, t, axis=1)[:, : size[0]])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def tiny_model(folder: Path) -> Path:
    torch.manual_seed(0)
    path = folder / "model.pth"
    write_state(path, build_model(load_config(CONFIG, SMALL)).state_dict())
    return path


def training_command(toy: list[str], output: Path, resume: bool) -> list[str]:
    return [
        *(str(ROOT / "train_net.py"), "--config-file", str(CONFIG), *(["--resume"] if resume else [])),
        *(*toy, "DATASETS.TEST", "()", "OUTPUT_DIR", str(output), "LOG_PERIOD", "1"),
        *("SOLVER.MAX_ITER", "40", "SOLVER.CHECKPOINT_PERIOD", "3", "DATALOADER.NUM_WORKERS", "1"),
        *("INPUT.MIN_SIZE_TRAIN", "(48,)", "INPUT.SAMPLING_FRAME_NUM", "2"),
    ]


def watch(command: list[str], expected: Path) -> str:
    """Runs a job, and compares memory, open files and threads in the middle and at the end.

    Raises:
        Failure: if the job fails.
    """
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    watched, samples = psutil.Process(process.pid), []
    while process.poll() is None:
        try:
            samples.append((watched.memory_info().rss / 1e6, watched.num_fds(), watched.num_threads()))
        except psutil.Error:
            break
        time.sleep(0.5)
    _, errors = process.communicate()
    if process.returncode or not expected.exists():
        raise Failure(f"exit code {process.returncode}: {errors.strip().splitlines()[-1:]}")
    tenth = max(1, len(samples) // 10)
    parts = [np.median(samples[i : i + tenth], axis=0) for i in (2 * tenth, 5 * tenth, 9 * tenth - 1)]
    texts = [
        f"{memory:.1f} MB, {files:.0f} open files, {threads:.0f} threads" for memory, files, threads in parts
    ]
    return " -> ".join(texts) + " after 0.2, 0.5 and 0.9 of the time"


def repeat(
    times: int, folder: Path, command: Callable[[Path], list[str]], read: Callable[[Path], object]
) -> list[object]:
    """Runs a command several times with one thread, then with two; returns what each number of threads gives.

    Raises:
        Failure: if it fails, or runs with the same number of threads differ.
    """
    found = []
    for threads in (1, 2):
        os.environ["OMP_NUM_THREADS"] = str(threads)
        outputs = [folder / f"{threads}threads{number}" for number in range(times)]
        for output in outputs:
            killed_after(command(output), 3600)
        found.append(read(outputs[0]))
        if not all(same(read(output), found[-1]) for output in outputs):
            raise Failure(f"runs with {threads} threads differ")
    return found


def run(what: str, times: int, folder: Path) -> str:
    """Runs one of the trials and returns what was seen."""
    train, val, frames = make_toy_dataset(folder / "toy", num_train=4, num_val=4, length=6, size=(48, 64))
    model = tiny_model(folder)
    options = ["MODEL.WEIGHTS", str(model), *SMALL]
    predict = [str(ROOT / "demo/demo.py"), "--config-file", str(CONFIG), "--confidence-threshold", "0"]
    if what == "training":
        toy = ["DATASETS.TRAIN", f"('ytvis:{train}:{frames}',)"]
        return kill_until(
            times, folder, lambda out, resume: training_command(toy, out, resume), training_content, True
        )
    if what == "evaluation":

        def evaluate(output: Path, _: bool) -> list[str]:
            test = ["DATASETS.TEST", f"('ytvis:{val}:{frames}',)", "OUTPUT_DIR", str(output)]
            return [str(ROOT / "train_net.py"), "--config-file", str(CONFIG), "--eval-only", *test, *options]

        return kill_until(times, folder, evaluate, content, False)
    if what == "repeated":
        toy = ["DATASETS.TRAIN", f"('ytvis:{train}:{frames}',)", "SEED", "1"]
        one, two = repeat(times, folder, lambda out: training_command(toy, out, False), training_content)
        losses = [(one[0][step], two[0][step]) for step in (0, 1, 9)]
        steps = ", ".join(f"{abs(a - b) / a:.1e}" for a, b in losses)
        test = ["DATASETS.TEST", f"('ytvis:{val}:{frames}',)"]
        base = [str(ROOT / "train_net.py"), "--config-file", str(CONFIG), "--eval-only", *test, *options]
        results = repeat(times, folder / "eval", lambda out: [*base, "OUTPUT_DIR", str(out)], content)
        return (
            f"{times} runs with the same number of threads are equal; between one thread and two, the losses "
            f"of steps 0, 1 and 9 differ by {steps} of their value, and results of an evaluation are "
            f"{'equal' if results[0] == results[1] else 'different'}"
        )
    if what in ("predict", "streaming"):
        video = encode(folder / "in.mp4", 60)

        def demo(output: Path, resume: bool) -> list[str]:
            more = ["--resume"] if resume else ["--streaming"] if what == "streaming" else []
            inputs = ["--input", str(video), "--output", str(output / "out.mp4")]
            return [*predict, *inputs, *more, "--opts", *options]

        return kill_until(times, folder, demo, content, what == "streaming")
    if what == "frames":
        video = encode(folder / "in.mp4", times)
        output = folder / "out" / "out.mp4"
        inputs = ["--input", str(video), "--output", str(output), "--streaming"]
        return watch([*predict, *inputs, "--opts", *options], output)
    for i in range(times):
        encode(folder / "videos" / f"{i:05d}.mp4", 6)
    inputs = ["--input", str(folder / "videos" / "*.mp4"), "--output", str(folder / "out")]
    return watch([*predict, *inputs, "--opts", *options], folder / "out" / f"{times - 1:05d}.mp4")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    trials = ("training", "evaluation", "predict", "streaming", "frames", "videos", "repeated")
    parser.add_argument("what", choices=trials)
    parser.add_argument("--times", type=int, default=50, help="kills, frames, videos or runs")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    args = parser.parse_args()
    random.seed(args.seed)
    with tempfile.TemporaryDirectory() as folder, exit_on_bad_input():
        try:
            print(f"\r{args.what}: {run(args.what, args.times, Path(folder))}")
        except Failure as failure:
            print(f"\r{args.what}: FAILED: {failure}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
