"""Times an exported model next to the network itself: encoder and decoder, on the CPU.

    seqformer export output/street --format onnx pt2 aoti
    python benchmarks/export.py output/street

The model is the one that was exported, by default the shipped one. Frames are noise. All formats in the
folder are timed, in one process with the same number of threads, and compared with the network's outputs.
Two rounds are made, and within them all calls of a format follow each other after a pause, since the waiting
threads of one runtime slow down the next.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import seqformer  # noqa: F401  before Detectron2, to hide one of its warnings

# isort: split
import torch
from model import sides_of
from tabulate import tabulate
from timing import device_name, seconds_of
from torch import Tensor

from seqformer import VideoPredictor
from seqformer.deployment import ClipDecoder, FrameEncoder
from seqformer.engine import keep_freed_memory
from seqformer.errors import InputError, exit_on_bad_input

_CPU = torch.device("cpu")
_PARTS = ("encoder", "decoder")
_ROUNDS = 2
_PAUSE = 0.5  # seconds

Function = Callable[..., Sequence[Tensor]]


def load_onnx(path: Path, threads: int) -> Function:
    """Returns the function of an ONNX file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def call(*inputs: Tensor | list[Tensor]) -> list[Tensor]:
        flat = [tensor for value in inputs for tensor in (value if isinstance(value, list) else [value])]
        feed = {name: tensor.numpy() for name, tensor in zip(names, flat, strict=True)}
        return [torch.from_numpy(output) for output in session.run(None, feed)]

    return call


def load_aoti(path: Path) -> Function:
    """Returns the function of a package of AOTInductor."""
    from torch._inductor import aoti_load_package

    return aoti_load_package(str(path))


def functions_of(folder: Path, part: str, threads: int) -> dict[str, Function]:
    """Returns the functions of all formats of one part in a folder."""
    found: dict[str, Function] = {}
    if (path := folder / f"{part}.pt2").is_file():
        found["pt2"] = torch.export.load(path).module()
    if (path := folder / f"{part}_aoti.pt2").is_file():
        found["aoti"] = load_aoti(path)
    if (path := folder / f"{part}.onnx").is_file():
        found["ONNX, onnxruntime"] = load_onnx(path, threads)
    if not found:
        raise InputError(f"'{folder}' has no {part}: make it with `seqformer export`")
    return found


def aligned(outputs: Sequence[Tensor]) -> list[Tensor]:
    """Returns the floating-point outputs, masks of candidates in the order of their queries.

    Queries that are nearly as probable may be candidates in another order, and the last may differ.
    """
    *others, candidates, logits = outputs
    if candidates.is_floating_point():  # the encoder's
        return list(outputs)
    order = candidates.argsort()
    return [*others, candidates[order].float(), logits[order]]


@torch.no_grad()
def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    keep_freed_memory()
    predictor = VideoPredictor.from_pretrained(args.model, opts=["MODEL.DEVICE", "cpu"])
    network, options = predictor.network, predictor.options
    height, width = sides_of(args.size)
    padded = [-(-side // 32) * 32 for side in (height, width)]
    frames = torch.zeros(args.frames, 3, *padded, dtype=torch.uint8)
    frames[..., :height, :width] = torch.randint(0, 256, (args.frames, 3, height, width))
    size = torch.tensor([height, width])
    own = {"encoder": FrameEncoder(network), "decoder": ClipDecoder(network, options.num_candidates)}
    *memory, mask_features = (output[: options.clip_length] for output in own["encoder"](frames, size))
    inputs = {"encoder": (frames, size), "decoder": (memory, mask_features, size)}

    place = f"{device_name(_CPU)}, {args.threads} threads, torch {torch.__version__}"
    print(f"{args.frames} frames of {args.size}, clips of {len(mask_features)}; {place}\n", flush=True)
    rows: dict[str, list[str]] = {}
    for part in _PARTS:
        functions = {"the network": own[part], **functions_of(args.folder, part, args.threads)}
        seconds: dict[str, list[float]] = {name: [] for name in functions}
        for _ in range(_ROUNDS):
            for name, function in functions.items():
                time.sleep(_PAUSE)
                call = partial(function, *inputs[part])
                seconds[name] += seconds_of(call, _CPU, repeats=args.repeats)
        expected = aligned(own[part](*inputs[part]))
        for name, function in functions.items():
            pairs = zip(aligned(function(*inputs[part])), expected, strict=True)
            furthest = max((a - b).abs().max().item() for a, b in pairs)
            own_row = function is own[part]
            rows.setdefault(name, [name]).extend(
                [f"{1000 * median(seconds[name]):.1f}", "" if own_row else f"{furthest:.0e}"]
            )
    header = ["", *(cell for part in _PARTS for cell in (f"{part}, ms", "furthest output"))]
    print(tabulate(list(rows.values()), header, "pipe", disable_numparse=True))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="as written by `seqformer export`")
    parser.add_argument("--model", metavar="MODEL", help="the exported model, as of `seqformer predict`")
    parser.add_argument("--frames", type=int, default=4, help="encoded together")
    parser.add_argument("--size", default="416x555", metavar="HxW", help="of the frames, not padded")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    with exit_on_bad_input():
        run(parser.parse_args())
