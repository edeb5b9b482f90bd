"""Measures long videos: memory and time by length, the speedup of the ring buffer, and AP of clips.

    python benchmarks/long_video.py memory      # peak memory and seconds per frame, at several lengths
    python benchmarks/long_video.py ring        # clips with and without the ring buffer
    python benchmarks/long_video.py accuracy    # AP of whole videos and of clips
    python benchmarks/long_video.py report      # tables and a plot of all measurements

    python benchmarks/long_video.py all

Every measurement runs in its own process and writes a JSON file to --output. Existing measurements are
skipped. Frames are those of demo/assets/street.mp4 at 640x360, repeated.

CLIP_STRIDE is 1, the published default, so clips share L - 1 frames. Accuracy is also measured with clips
that share half of their frames.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import seqformer  # noqa: F401  before Detectron2, to hide one of its warnings

# isort: split
import cv2
import numpy as np
import torch
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.evaluation import inference_on_dataset
from detectron2.modeling import build_model
from matplotlib.figure import Figure

from seqformer import SeqFormer
from seqformer.checkpoints import SeqFormerCheckpointer
from seqformer.config import load_config
from seqformer.data import build_test_loader, resolve_datasets
from seqformer.engine import keep_freed_memory
from seqformer.errors import InputError, exit_on_bad_input
from seqformer.evaluation import YTVISEvaluator
from seqformer.formats.files import replaced_when_complete
from seqformer.formats.results import write_results
from seqformer.formats.spool import ResultSpool, read_spool
from seqformer.inference import StreamingPredictor
from seqformer.inference.postprocess import select_queries
from seqformer.inference.video import VideoInference
from seqformer.model_zoo import SHIPPED_MODEL, get_config_file, get_weights_file
from seqformer.tracking import ClipInstances, InstanceStore, assign_by_overlap
from seqformer.video import VideoReader

ROOT = Path(__file__).resolve().parents[1]
STREET = ROOT / "demo/assets/street.mp4"
SIZE = (360, 640)
MODELS = {"small": get_config_file(SHIPPED_MODEL), "R50": ROOT / "configs/ytvis19/seqformer_R50.yaml"}
LENGTHS = {"small": (100, 1000, 10000), "R50": (100, 300)}
BLOCKS = 10  # parts of a run whose times are compared
CLIP_LENGTHS = (15, 10, 5, 3)  # the dataset's videos have 20 frames, so a clip of 20 is the whole video
TOLERANCE = 1e-4
ID_SWITCH_THRESHOLD = 0.3  # results with lower scores are left out when counting ID switches


def street(count: int) -> Iterator[np.ndarray]:
    """Yields ``count`` frames (360, 640, 3), uint8 RGB, without keeping them."""

    def forever() -> Iterator[np.ndarray]:
        while True:
            with VideoReader(STREET) as video:
                for frame in video:
                    yield cv2.resize(frame, SIZE[::-1], interpolation=cv2.INTER_AREA)

    return islice(forever(), count)


def make_model(name: str, *opts: str) -> tuple[SeqFormer, Any]:
    """Returns the shipped model, or R50 with random weights, and its config."""
    torch.manual_seed(0)
    clips = ["MODEL.SeqFormer.CLIP_MATCHING", "True", "MODEL.SeqFormer.CLIP_STRIDE", "1"]
    cfg = load_config(MODELS[name], ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", *clips, *opts])
    model = build_model(cfg).eval().requires_grad_(False)
    if name == "small":
        SeqFormerCheckpointer(model, strict=True).load(str(get_weights_file(SHIPPED_MODEL)))
    return model, cfg


def make_stream(model: SeqFormer, cfg: Any) -> StreamingPredictor:
    resize = ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    return StreamingPredictor(model.network, model.options, resize=resize, input_format=cfg.INPUT.FORMAT)


def peak_memory() -> float:
    """Returns the peak memory of this process, MB."""
    scale = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e6


def measure_memory(name: str, frames: int, short_side: int) -> dict[str, Any]:
    """Streams a video and writes final frames to disk, like ``seqformer predict``, then results.json."""
    model, cfg = make_model(name, "INPUT.MIN_SIZE_TEST", str(short_side))
    stream = make_stream(model, cfg)
    block = max(frames // BLOCKS, 1)
    seconds, rle_bytes = [], 0
    with tempfile.TemporaryDirectory() as folder, ResultSpool(Path(folder, "frames.jsonl")) as spool:
        begin = start = time.perf_counter()
        for t, frame in enumerate(street(frames), start=1):
            for result in stream.push(frame) + (stream.finish() if t == frames else []):
                rle_bytes += sum(len(instance.mask["counts"]) for instance in result.instances)
                spool.write(result)
            if t % block == 0:
                seconds.append((time.perf_counter() - start) / block)
                start = time.perf_counter()
                print(f"{name}: {t} of {frames} frames, {seconds[-1]:.3f} seconds each", file=sys.stderr)
        total = time.perf_counter() - begin
        tracking = peak_memory()
        tracklets = stream.tracklets()
        tracklets.add(read_spool(spool.path))
        write_results(Path(folder, "results.json"), (t.to_json() for t in tracklets.tracklets(SIZE)))
    return {
        "model": name,
        "frames": frames,
        "short_side": short_side,
        "tracking_mb": tracking,
        "with_json_mb": peak_memory(),
        "rle_mb": rle_bytes / 1e6,
        "block": block,
        "block_seconds": seconds,
        "seconds": total,
    }


@torch.no_grad()
def every_clip_anew(model: SeqFormer, images: list[torch.Tensor]) -> VideoResults:
    """Processes clips without a ring buffer: each frame is encoded in every clip."""
    options, results = model.options, VideoResults()
    store = InstanceStore(options.clip_length)
    for start in range(len(images) - options.clip_length + 1):
        end = start + options.clip_length
        frames = model.encode(images[start:end])
        output = model.network.decode(frames, len(frames))[-1]
        probabilities = model.network.classify(-1, output)[0].sigmoid()
        chosen = select_queries(probabilities, options)
        masks = model.network.masks(
            frames, output.instance_queries[0, chosen], output.reference[0, :, chosen]
        )
        clip = ClipInstances(start, probabilities[chosen], masks)
        store.add(clip, assign_by_overlap(store, clip))
        while (final := store.pop_final(len(images) if end == len(images) else start + 1, 1)) is not None:
            results.masks.append((final.ids, final.mask_logits))
        results.probabilities.update(store.pop_retired())
    return results


def from_ring_buffer(model: SeqFormer, images: list[torch.Tensor]) -> VideoResults:
    inference, results = VideoInference(model.network, model.options), VideoResults()
    for final in inference.run(images):
        for t in range(final.mask_logits.shape[1]):
            held = final.present[:, t].nonzero()[:, 0].tolist()
            results.masks.append(([final.ids[row] for row in held], final.mask_logits[held, t : t + 1]))
        results.probabilities.update(inference.probabilities())
    return results


class VideoResults:
    """Mask logits and instances by frame, and class probabilities by instance."""

    def __init__(self) -> None:
        self.masks: list[tuple[list[int], torch.Tensor]] = []
        self.probabilities: dict[int, torch.Tensor] = {}

    def difference(self, other: VideoResults) -> float:
        """Returns the largest difference of probabilities, and of logits relative to the largest logit."""
        if [ids for ids, _ in self.masks] != [ids for ids, _ in other.masks]:
            raise InputError("results with and without the ring buffer have different instances")
        scale = max(float(logits.abs().max()) for _, logits in other.masks)
        pairs = zip(self.masks, other.masks, strict=True)
        masks = max(float((a - b).abs().max()) for (_, a), (_, b) in pairs) / scale
        classes = max(float((self.probabilities[i] - p).abs().max()) for i, p in other.probabilities.items())
        return max(masks, classes)


def measure_ring(frames: int, repeats: int) -> dict[str, Any]:
    """Times L = 5, S = 1, R50 with and without the ring buffer, in turns."""
    model, cfg = make_model("R50", "MODEL.SeqFormer.CLIP_LENGTH", "5")
    stream = make_stream(model, cfg)
    images = [stream.prepare(frame) for frame in street(frames)]
    ways = {"ring": from_ring_buffer, "anew": every_clip_anew}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        results = {}
        for name, way in ways.items():
            start = time.perf_counter()
            results[name] = way(model, images)
            taken = time.perf_counter() - start
            print(f"{name}: {taken / frames:.2f} seconds per frame", file=sys.stderr)
            if repeat:  # the first is a warm-up
                seconds[name].append(taken / frames)
    difference = results["ring"].difference(results["anew"])
    if difference > TOLERANCE:
        raise InputError(f"the ring buffer's results differ by {difference:.1e}, more than {TOLERANCE:g}")
    return {"frames": frames, "difference": difference, "seconds": seconds}


def measure_accuracy(dataset: str, length: int, stride: int, videos: int | None) -> dict[str, Any]:
    """Measures AP on a dataset, with clips matched by overlap; length 0 is the whole video."""
    clips = [str(length > 0), "MODEL.SeqFormer.CLIP_LENGTH", str(length or 1)]
    opts = ["MODEL.SeqFormer.CLIP_MATCHING", *clips, "MODEL.SeqFormer.CLIP_STRIDE", str(stride)]
    model, cfg = make_model("small", *opts, "MODEL.SeqFormer.MOTION_WEIGHT", "0.0")
    (name,) = resolve_datasets([dataset])
    loader = build_test_loader(cfg, name)
    evaluator = YTVISEvaluator(name, score_threshold=ID_SWITCH_THRESHOLD)
    start = time.perf_counter()
    figures = inference_on_dataset(model, islice_loader(loader, videos), evaluator)["segm"]
    kept = {key: float(figures[key]) for key in ("AP", "AP50", "AP75", "id_switches")}
    return {"length": length, "stride": stride, "seconds": time.perf_counter() - start, **kept}


def islice_loader(loader: Any, count: int | None) -> list[Any] | Any:
    """Returns the loader, or a list of its first videos, because Detectron2 needs the length."""
    return loader if count is None else list(islice(loader, count))


def run_process(arguments: list[str]) -> str:
    """Runs a Python command and returns its standard output; stderr is inherited."""
    process = subprocess.run([sys.executable, *arguments], stdout=subprocess.PIPE, text=True)
    if process.returncode:
        raise InputError(f"'{' '.join(arguments)}' failed with exit code {process.returncode}")
    return process.stdout


def measured(folder: Path, name: str, arguments: list[str]) -> None:
    """Runs a measurement in its own process, unless its result exists."""
    path = folder / f"{name}.json"
    if path.is_file():
        print(f"{path} exists: skipped", file=sys.stderr)
        return
    folder.mkdir(parents=True, exist_ok=True)
    told = run_process([str(Path(__file__).resolve()), "one", *arguments])
    with replaced_when_complete(path) as part:
        Path(part).write_text(told.splitlines()[-1] + "\n")


def run_part(args: argparse.Namespace) -> None:
    """Runs one part of the benchmark, with a process for each measurement."""
    folder, threads = args.output, ["--threads", str(args.threads)]
    if args.part in ("memory", "all"):
        for model in args.models:
            for frames in args.lengths or LENGTHS[model]:
                case = ["memory", model, str(frames), str(args.short_side), *threads]
                measured(folder, f"memory_{model}_{frames:06d}", case)
    if args.part in ("ring", "all"):
        measured(folder, "ring", ["ring", str(args.frames), str(args.repeats), *threads])
    if args.part in ("accuracy", "all"):
        cases = [(0, 1)] + [(length, stride) for stride in args.strides for length in CLIP_LENGTHS]
        for length, stride in cases:
            stride = stride or length // 2
            case = ["accuracy", args.dataset, str(length), str(stride), str(args.videos or 0), *threads]
            measured(folder, f"accuracy_{length:02d}_{stride:02d}", case)
    report(folder)


def run_one(args: argparse.Namespace) -> None:
    """Runs one measurement in this process, and prints it as a line of JSON."""
    torch.set_num_threads(args.threads)
    keep_freed_memory()  # like seqformer predict
    kind, *rest = args.measurement
    if kind == "memory":
        result = measure_memory(rest[0], int(rest[1]), int(rest[2]))
    elif kind == "ring":
        result = measure_ring(int(rest[0]), int(rest[1]))
    else:
        result = measure_accuracy(rest[0], int(rest[1]), int(rest[2]), int(rest[3]) or None)
    print(json.dumps(result))


def load(folder: Path, pattern: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob(pattern))]


def report(folder: Path) -> None:
    """Prints tables of all measurements, and writes them and the plot to the folder."""
    memory, accuracy = load(folder, "memory_*.json"), load(folder, "accuracy_*.json")
    ring = load(folder, "ring.json")
    if not (memory or accuracy or ring):
        raise InputError(f"no measurements in '{folder}'")
    lines: list[str] = []
    if memory:
        lines += [
            "| model | frames | peak, MB | ratio to the smallest | with results.json, MB | RLE, MB "
            "| seconds per frame | slowest / fastest block, without the first |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for run in memory:
            least = min(other["tracking_mb"] for other in memory if other["model"] == run["model"])
            blocks = (
                run["block_seconds"][1:] or run["block_seconds"]
            )  # the first clip comes late in the first
            lines.append(
                f"| {run['model']} | {run['frames']} | {run['tracking_mb']:.0f} "
                f"| {run['tracking_mb'] / least:.3f} | {run['with_json_mb']:.0f} | {run['rle_mb']:.2f} "
                f"| {run['seconds'] / run['frames']:.3f} | {max(blocks) / min(blocks):.2f} |"
            )
    for run in ring:
        ways = {name: median(taken) for name, taken in run["seconds"].items()}
        lines += ["", "| R50, L = 5, S = 1 | seconds per frame |", "|---|---|"]
        lines += [f"| ring buffer | {ways['ring']:.2f} |", f"| no ring buffer | {ways['anew']:.2f} |"]
        lines += [f"| speedup | {ways['anew'] / ways['ring']:.2f} |"]
        lines += ["", f"{run['frames']} frames; results differ by at most {run['difference']:.1e}."]
    if accuracy:
        lines += [
            "",
            f"| L | S | AP | AP50 | AP75 | ID switches (score >= {ID_SWITCH_THRESHOLD}) | seconds |",
            "|---|---|---|---|---|---|---|",
        ]
        for run in sorted(accuracy, key=lambda run: (-(run["length"] or 10**6), run["stride"])):
            clip = f"{run['length']} | {run['stride']}" if run["length"] else "whole video |"
            lines.append(
                f"| {clip} | {run['AP']:.2f} | {run['AP50']:.2f} | {run['AP75']:.2f} "
                f"| {run['id_switches']:.0f} | {run['seconds']:.0f} |"
            )
    table = "\n".join(lines).strip() + "\n"
    print(table)
    (folder / "long_video.md").write_text(table)
    plot(folder / "long_video.png", memory, accuracy)


def plot(path: Path, memory: list[dict[str, Any]], accuracy: list[dict[str, Any]]) -> None:
    """Plots memory by length, seconds per frame in the longest runs, and AP by clip length."""
    if not (memory or accuracy):
        return
    figure = Figure(figsize=(9, 3), dpi=150, layout="constrained")
    axes = figure.subplots(1, 2 * bool(memory) + bool(accuracy), squeeze=False)[0].tolist()
    if memory:
        by_length, by_frame = axes.pop(0), axes.pop(0)
        for model in dict.fromkeys(run["model"] for run in memory):
            runs = [run for run in memory if run["model"] == model]
            by_length.plot(
                [run["frames"] for run in runs], [run["tracking_mb"] for run in runs], "o-", label=model
            )
            longest = runs[-1]
            ends = longest["block"] * np.arange(1, len(longest["block_seconds"]) + 1)
            label = f"{model}, {longest['frames']} frames"
            by_frame.plot(100 * ends / longest["frames"], longest["block_seconds"], "o-", label=label)
        by_length.set(xscale="log", xlabel="frames", ylabel="peak memory, MB")
        by_frame.set(xlabel="part of the video, %", ylabel="seconds per frame")
        for axis in (by_length, by_frame):
            axis.set_ylim(0, 1.1 * axis.get_ylim()[1])
            axis.legend()
    if accuracy:
        (axis,) = axes
        for every, label in ((lambda s, n: s == 1, "S = 1"), (lambda s, n: 1 < s == n // 2, "S = L/2")):
            runs = [run for run in accuracy if run["length"] and every(run["stride"], run["length"])]
            if runs:
                axis.plot([run["length"] for run in runs], [run["AP"] for run in runs], "o-", label=label)
        for run in accuracy:
            if not run["length"]:
                axis.plot([20], [run["AP"]], "ks", label="whole video")
        axis.set(xlabel="clip length", ylabel="AP", xticks=[*CLIP_LENGTHS, 20])
        axis.legend()
    figure.savefig(path)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(dest="part", required=True, metavar="PART")
    for name in ("memory", "ring", "accuracy", "all", "report"):
        part = parts.add_parser(name)
        part.add_argument("--output", type=Path, default=Path("output/long_video"), metavar="DIR")
        part.add_argument("--threads", type=int, default=2, help="PyTorch threads")
        part.add_argument(
            "--lengths", type=int, nargs="+", metavar="FRAMES", help="memory: video lengths for every model"
        )
        part.add_argument(
            "--models", nargs="+", choices=MODELS, default=list(MODELS), help="memory: models to measure"
        )
        part.add_argument(
            "--short-side", type=int, default=352, help="memory: short side of the network's input"
        )
        part.add_argument("--frames", type=int, default=30, help="ring: frames of the video")
        part.add_argument("--repeats", type=int, default=3, help="ring: repeats")
        part.add_argument("--videos", type=int, help="accuracy: use only the first N videos")
        part.add_argument(
            "--strides",
            type=int,
            nargs="+",
            default=[1, 0],
            help="accuracy: clip strides; 0 is half of a clip",
        )
        part.add_argument(
            "--dataset",
            default="ytvis:datasets/pedestrians/val.json:datasets/pedestrians/val/JPEGImages",
            help="accuracy: dataset",
        )
    one = parts.add_parser("one", help="one measurement in this process, printed as a line of JSON")
    one.add_argument("measurement", nargs="+")
    one.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(argv)
    with exit_on_bad_input():
        if args.part == "one":
            run_one(args)
        elif args.part == "report":
            report(args.output)
        else:
            run_part(args)


if __name__ == "__main__":
    main()
