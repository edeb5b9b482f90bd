"""Gives damaged files to every reader until time is up, and lists what is neither read nor refused clearly.

The files are those that the tests make, with changed values, words and bytes. An input that takes more than
10 seconds, more than 1 GB of memory in addition, or ends the process is a finding, and so is any error that
is not an InputError. ``--only READER --seed N`` repeats one input.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import pickle
import random
import re
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from damage import ALL, copy_of, damage, is_clear, write_all
from networks import tiny_config, tiny_model
from PIL import Image
from safetensors.torch import save_file
from videos import encode

from seqformer.checkpoints.files import read_category_ids, read_class_names, read_state
from seqformer.cli.check import main as check
from seqformer.cli.streaming_job import restore
from seqformer.config import load_config
from seqformer.errors import InputError
from seqformer.formats.frames import frame_size, read_frame, read_ids
from seqformer.formats.labelled import read_labelled
from seqformer.formats.results import read_results, write_results
from seqformer.formats.rle import decode_mask, to_rle
from seqformer.formats.spool import ResultSpool, read_spool
from seqformer.formats.ytvis import read_ytvis
from seqformer.inference import StreamingPredictor
from seqformer.video import VideoReader

_SECONDS = 10  # for one input
_MEMORY = 10**9  # bytes, in addition to the process
_CHUNK = 100  # inputs of one reader in a row
_MOST_DECODED = 20  # frames of a video


@dataclass
class Reader:
    """A reader with files that it can read.

    Attributes:
        samples: files or folders in the folder of samples.
        read: called with the damaged copy and the folder of samples.
    """

    samples: list[str]
    read: Callable[[Path, Path], object]


def _read_masks(path: Path, _: Path) -> None:
    """Reads a JSON list of [segmentation, height, width]."""
    try:
        entries = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, list) and entry:
            mask = to_rle(entry[0], 6, 8)
            if mask is not None:
                decode_mask(mask)


def _check(path: Path, root: Path) -> None:
    """Runs `seqformer check`, which may exit with 0, 1 or 2 and prints whole lines."""
    try:
        check([str(path), str(root / "frames")])
    except SystemExit as end:
        if end.code not in (0, 1, 2):
            raise


def _read_results(path: Path, root: Path) -> None:
    dataset = read_ytvis(root / "dataset.json")
    list(read_results(path, dataset.videos, dataset.names))
    read_labelled(root / "dataset.json", path)


def _read_picture(path: Path, _: Path) -> None:
    for read in (frame_size, read_frame, lambda path: read_ids(path, (6, 8))):
        try:
            read(path)
        except InputError as error:
            _must_be_clear(error)


def _read_video(path: Path, _: Path) -> None:
    with VideoReader(path) as video:
        for number, _frame in enumerate(video):
            if number == _MOST_DECODED:
                return
    _ = video.problem


def _read_checkpoint(path: Path, _: Path) -> None:
    for read in (read_state, read_class_names, read_category_ids):
        try:
            read(path)
        except InputError as error:
            _must_be_clear(error)


def _read_state(path: Path, _: Path) -> None:
    restore(_stream(), path)


def _stream() -> StreamingPredictor:
    model = _model()
    options = replace(model.options, clip_matching=True, clip_length=2, threshold=0.27)
    return StreamingPredictor(model.network, options, resize=_KeepSize())


_models: list[Any] = []


def _model() -> Any:
    if not _models:
        torch.manual_seed(0)
        model = tiny_model(NUM_OBJECT_QUERIES=5)
        for head in model.network.detr.class_embed:
            torch.nn.init.constant_(head.bias, -1.0)
        _models.append(model)
    return _models[0]


class _KeepSize:
    """Replaces Detectron2's resize."""

    def get_transform(self, _: np.ndarray) -> _KeepSize:
        return self

    def apply_image(self, frame: np.ndarray) -> np.ndarray:
        return frame


_PICTURES = [
    "p.png",
    "p.jpg",
    "p.bmp",
    "p.ppm",
    "p.tif",
    "p.webp",
    "deep.png",
    "deep.tif",
    "ids.png",
    "a.pgm",
]
_VIDEOS = ["v.mp4", "v.mkv", "v.avi", "v.webm", "v.mpg", "v.mov"]
_CHECKPOINTS = ["w.pth", "legacy.pth", "w.pkl", "w.safetensors"]

READERS = {
    "youtube-vis": Reader(["dataset.json"], lambda path, root: read_ytvis(path, image_root=root / "frames")),
    "check": Reader(["dataset.json"], _check),
    "results": Reader(["results.json"], _read_results),
    "rle": Reader(["masks.json"], _read_masks),
    **{
        name: Reader([name], lambda path, root, form=form: form.read(path, root / "frames"))
        for name, form in ALL.items()
    },
    "spool": Reader(["frames.jsonl"], lambda path, _: list(read_spool(path))),
    "pictures": Reader(_PICTURES, _read_picture),
    "videos": Reader(_VIDEOS, _read_video),
    "checkpoints": Reader(_CHECKPOINTS, _read_checkpoint),
    "state": Reader(["state.pth"], _read_state),
    "configs": Reader(["config"], lambda path, _: load_config(path / "config.yaml")),
}


def write_samples(root: Path) -> None:
    """Writes one valid file or folder of every kind."""
    write_all(root)
    dataset = read_ytvis(root / "dataset.json")
    results = [
        {"video_id": a.video.id, "category_id": a.category, "score": 0.5, "segmentations": a.masks}
        for a in dataset.annotations or ()
    ]
    write_results(root / "results.json", results)
    polygon = [1, 1, 5, 1, 5, 4, 1.5, 4.5]
    runs = {"size": [6, 8], "counts": [7, 3, 3, 3, 32]}
    masks = [results[0]["segmentations"][0], [polygon], [polygon, polygon], runs]
    (root / "masks.json").write_text(json.dumps([[mask] for mask in masks]))

    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    for name in _PICTURES[:6]:
        Image.fromarray(noise).save(root / name)
    levels = Image.fromarray(noise[..., 0].astype(np.uint16) * 200)
    for name in ("deep.png", "deep.tif"):
        levels.save(root / name)
    Image.fromarray(noise[..., 0]).convert("P").save(root / "ids.png")
    (root / "a.pgm").write_text("P2 8 6 65535\n" + " ".join(map(str, range(48))))
    codecs = {".webm": "libvpx", ".mpg": "mpeg2video", ".avi": "mjpeg", ".mov": "mpeg4"}
    for name in _VIDEOS:
        codec = codecs.get(Path(name).suffix, "libx264")
        encode(root / name, 4, height=32, width=48, codec=codec, fps=25, rotation=90 * (name == "v.mov"))

    state = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(3, dtype=torch.int64)}
    torch.save({"model": state, "iteration": 7, "args": argparse.Namespace(lr=0.5)}, root / "w.pth")
    legacy = {"state_dict": state, "shape": state["a.weight"].shape}
    torch.save(legacy, root / "legacy.pth", _use_new_zipfile_serialization=False)
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    (root / "w.pkl").write_bytes(pickle.dumps({"model": arrays, "scalar": np.float32(2)}))
    metadata = {"thing_classes": '["cat", "dog"]', "category_ids": "[1, 2]"}
    save_file(state, root / "w.safetensors", metadata)

    stream = _stream()
    lines = []
    for shade in (0, 60, 120, 180):
        for result in stream.push(np.full((32, 32, 3), shade, dtype=np.uint8)):
            lines.append(result)
    torch.save(stream.state(), root / "state.pth")
    with ResultSpool(root / "frames.jsonl") as spool:
        for result in lines:
            spool.write(result)
    folder = root / "config"
    folder.mkdir()
    (folder / "base.yaml").write_text(tiny_config().dump())
    (folder / "config.yaml").write_text('_BASE_: "base.yaml"\nSOLVER:\n  STEPS: (1, 2)\n  BASE_LR: 1e-4\n')


def _must_be_clear(error: InputError) -> None:
    assert is_clear(error), str(error)


def try_input(name: str, seed: int, root: Path) -> str | None:
    """Returns the traceback of an input that is a finding, otherwise None."""
    reader = READERS[name]
    source = random.Random(f"{name} {seed}")
    with tempfile.TemporaryDirectory() as folder:
        copy, files = copy_of(root / source.choice(reader.samples), Path(folder))
        damage(source.choice(files), source)
        try:
            reader.read(copy, root)
        except InputError as error:
            try:
                _must_be_clear(error)
            except AssertionError:
                return traceback.format_exc()
        except Exception:
            return traceback.format_exc()
    return None


def _work(name: str, first: int, count: int, root: Path, report: Path) -> None:
    """Tries inputs, and writes the seed of each before, and findings after it."""
    warnings.simplefilter("ignore")
    _limit_memory()
    with report.open("w") as file, open(os.devnull, "w") as nowhere:
        sys.stdout = nowhere
        for seed in range(first, first + count):
            file.write(f"{seed}\n")
            file.flush()
            faulthandler.dump_traceback_later(_SECONDS, exit=True, file=2)
            found = try_input(name, seed, root)
            faulthandler.cancel_dump_traceback_later()
            if found:
                file.write(json.dumps({"seed": seed, "text": found}) + "\n")


def _limit_memory() -> None:
    used = int(re.findall(r"VmSize:\s*(\d+) kB", Path("/proc/self/status").read_text())[0]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, resource.RLIM_INFINITY))


def _in_child(errors: Path, function: Callable[..., None], *args: object) -> int:
    """Calls a function in a child process, whose stderr is a file; returns its exit code."""
    sys.stdout.flush()
    process = os.fork()
    if not process:
        code = 1
        try:
            os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            faulthandler.enable(2)
            function(*args)
            code = 0
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def try_inputs(name: str, first: int, count: int, root: Path) -> tuple[int, list[tuple[int, str]]]:
    """Tries inputs; returns the number that were tried, and findings with their seeds."""
    report, errors = root / "report", root / "errors"
    code = _in_child(errors, _work, name, first, count, root, report)
    records = [json.loads(line) for line in report.read_text().splitlines()]
    seeds = [line for line in records if isinstance(line, int)]
    findings = [(line["seed"], line["text"]) for line in records if isinstance(line, dict)]
    if code:
        text = errors.read_text(errors="replace")
        stack = re.search(r"(Timeout \(|Fatal Python error)[\s\S]{,3000}", text)
        text = stack[0] if stack else text[-3000:]
        findings.append((seeds[-1], f"{text}\nended with {code}"))
    return len(seeds), findings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1, help="start nothing new after it (default: 1)")
    parser.add_argument("--only", choices=READERS, action="append", help="readers; by default all")
    parser.add_argument("--seed", type=int, help="try only the input of this seed")
    parser.add_argument("--first", type=int, default=random.randrange(2**32), help="first seed")
    parser.add_argument("--count", type=int, help="try this many inputs of every reader, whatever the time")
    args = parser.parse_args()
    names = args.only or list(READERS)
    if args.seed is not None:
        args.first, args.count = args.seed, 1
    print(f"first seed {args.first}")
    tried = dict.fromkeys(names, 0)
    kinds: dict[str, int] = {}
    end = time.monotonic() + args.minutes * 60
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        errors = root / "errors"
        if _in_child(errors, write_samples, root):
            raise RuntimeError(errors.read_text())

        def goes_on(name: str) -> bool:
            return tried[name] < args.count if args.count else time.monotonic() < end

        while any(map(goes_on, names)):
            for name in filter(goes_on, names):
                wanted = min(_CHUNK, args.count - tried[name]) if args.count else _CHUNK
                number, findings = try_inputs(name, args.first + tried[name], wanted, root)
                tried[name] += number
                for seed, text in findings:
                    last = [line for line in text.splitlines() if line.strip()][-3:]
                    kind = re.sub(r"\d+|/tmp\S+", "N", f"{name} {last}")
                    kinds[kind] = kinds.get(kind, 0) + 1
                    if kinds[kind] == 1:
                        print(f"\n{name}: repeat with --only {name} --seed {seed}\n{text}", flush=True)
    print("inputs: " + ", ".join(f"{name} {number}" for name, number in tried.items()))
    print(f"{sum(kinds.values())} findings of {len(kinds)} kinds")
    return 1 if kinds else 0


if __name__ == "__main__":
    sys.exit(main())
