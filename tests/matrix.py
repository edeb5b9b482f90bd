"""Runs the tests as on other machines: with older instruction sets, one thread and two, in random orders.

The short form runs only tests that depend on rounding, with every instruction set but the processor's best.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch

REPOSITORY = Path(__file__).resolve().parents[1]
# PyTorch's names of instruction sets, oldest first -> values of the variables that limit PyTorch, oneDNN and
# the operators to them.
CAPABILITIES = {
    "DEFAULT": ("default", "SSE41", "baseline"),
    "AVX2": ("avx2", "AVX2", "avx2"),
    "AVX512": ("avx512", "AVX512_CORE", "avx512"),
}
VARIABLES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "SEQFORMER_CPU_CAPABILITY")
ORDERS = (1, 2, 3)
NUMERIC = [
    "tests/ops",
    "tests/modeling",
    "tests/tracking",
    "tests/inference",
    "tests/test_fidelity.py",
    "tests/test_fidelity_public.py",
    "tests/test_overfit.py",
]
# These tests compile C++ themselves, for the instruction sets that the compiler detects.
NOT_NUMERIC = ["-k", "not sanitizers and not inductor"]


class Run(NamedTuple):
    capability: str
    threads: int
    arguments: list[str]

    def __call__(self) -> bool:
        """Runs the tests; returns whether they pass."""
        limits = dict(zip(VARIABLES, CAPABILITIES[self.capability], strict=True))
        # Waiting threads sleep, since there are more threads than cores.
        limits |= {"OMP_NUM_THREADS": str(self.threads), "OMP_WAIT_POLICY": "PASSIVE"}
        command = [sys.executable, "-m", "pytest", "-q", "-n", str(os.cpu_count() or 1), *self.arguments]
        print(" ".join([*(f"{name}={value}" for name, value in limits.items()), *command[1:]]), flush=True)
        # Inductor would take code from its cache that it generated under another limit.
        with tempfile.TemporaryDirectory() as cache:
            environment = os.environ | limits | {"TORCHINDUCTOR_CACHE_DIR": cache}
            return subprocess.run(command, cwd=REPOSITORY, env=environment).returncode == 0


def plan(short: bool, more: list[str]) -> list[Run]:
    """Returns runs of every instruction set with every number of threads, alternating between the orders."""
    best = torch.backends.cpu.get_cpu_capability()
    names = list(CAPABILITIES)
    # Processors other than x86-64 have differently named sets; only the oldest name is common to all.
    available = names[: names.index(best) + 1] if best in names else names[:1]
    if short:
        return [Run(name, 1, [*NUMERIC, *NOT_NUMERIC, *more]) for name in available[:-1] or available]
    return [
        Run(name, threads, ["--random-order", f"--random-order-seed={ORDERS[(i + j) % len(ORDERS)]}", *more])
        for i, name in enumerate(available)
        for j, threads in enumerate((1, 2))
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--short", action="store_true", help="run only tests that depend on rounding, without the best set"
    )
    parser.add_argument("--threads", type=int, choices=(1, 2), help="run only with one or two threads")
    args, more = parser.parse_known_args()
    runs = [run for run in plan(args.short, more) if args.threads in (None, run.threads)]
    results = [(run, run()) for run in runs]
    for run, passed in results:
        outcome = "passed" if passed else "FAILED"
        print(f"{run.capability:8} {run.threads} thread{'s' * (run.threads > 1)}: {outcome}")
    return 0 if all(passed for _, passed in results) else 1


if __name__ == "__main__":
    sys.exit(main())
