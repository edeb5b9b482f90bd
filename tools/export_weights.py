"""Makes a small file of a trained model: half precision, no optimizer, class names included.

python tools/export_weights.py output/pedestrians/model_final.pth model.safetensors --classes person
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from convert_checkpoint import read_file, read_state
from seqformer.errors import InputError, exit_on_bad_input


def read_average(source: Path) -> dict[str, torch.Tensor]:
    """The moving average of the weights (SOLVER.EMA) that a checkpoint of a training holds."""
    checkpoint = read_file(source)
    trainer = checkpoint.get("trainer", {}) if isinstance(checkpoint, dict) else {}
    if "average" not in trainer:
        raise InputError(f"'{source}' has no moving average: it was trained without SOLVER.EMA.ENABLED")
    prefix = "module."
    average = trainer["average"].items()
    return {name.removeprefix(prefix): tensor for name, tensor in average if name.startswith(prefix)}


def export(source: Path, output: Path, classes: list[str], average: bool = False) -> None:
    """Writes the model of a checkpoint as a safetensors file in float16.

    Modules that appear under two names, as box heads do, are written under both, as checkpoints have them.
    Queries that only training uses (MODEL.SeqFormer.QUERY_GROUPS) are left out.

    Raises:
        InputError: if the checkpoint is missing, has no average to export, or has another number
            of classes.
    """
    if output.suffix != ".safetensors":
        raise InputError(f"'{output}': the output must end in .safetensors")
    state = read_average(source) if average else read_state(source)
    head = state.get("detr.detr.class_embed.0.bias")
    if head is None:
        raise InputError(f"'{source}' is no checkpoint of SeqFormer")
    if len(head) != len(classes):
        raise InputError(f"'{source}' has {len(head)} classes, --classes names {len(classes)}")
    # The fp16 range holds every weight that training leaves; buffers of integers stay as they are.
    half = {
        name: t.half() if t.is_floating_point() else t
        for name, t in state.items()
        if not name.endswith(".training_query_embed.weight")
    }
    if not all(torch.isfinite(t).all() for t in half.values() if t.is_floating_point()):
        raise InputError(f"'{source}' has weights beyond the range of float16")
    part = output.with_name(output.name + ".part")
    try:
        save_file(
            {name: t.clone().contiguous() for name, t in half.items()},
            part,
            metadata={"thing_classes": json.dumps(classes)},
        )
        part.replace(output)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise InputError(f"'{output}' cannot be written: {error.strerror}") from error
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument(
        "--classes", nargs="+", required=True, metavar="NAME", help="in the order of the model"
    )
    parser.add_argument("--average", action="store_true", help="the weights' moving average (SOLVER.EMA)")
    args = parser.parse_args(argv)
    with exit_on_bad_input():
        export(args.checkpoint, args.output, args.classes, args.average)


if __name__ == "__main__":
    main()
