"""Runs rounds of the property tests on new examples, until time is up or a test fails.

Every round prints its seed. ``make fuzz SEED=N`` repeats only the round of seed N.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--minutes", type=float, default=10, help="start no new round after this time (default: 10)"
    )
    parser.add_argument("--seed", type=int, help="run only the round of this seed")
    args, more = parser.parse_known_args()

    end = time.monotonic() + args.minutes * 60
    while True:
        seed = random.randrange(2**32) if args.seed is None else args.seed
        print(f"seed {seed}: repeat this round with `make fuzz SEED={seed}`", flush=True)
        profile = ["--hypothesis-profile", "fuzz", "--hypothesis-seed", str(seed)]
        command = [sys.executable, "-m", "pytest", "-q", "-m", "hypothesis", *profile, *more]
        status = subprocess.run(command, cwd=REPOSITORY).returncode
        if status != 0:
            print(f"failed with seed {seed}: repeat with `make fuzz SEED={seed}`")
        if status != 0 or args.seed is not None or time.monotonic() >= end:
            return status


if __name__ == "__main__":
    sys.exit(main())
