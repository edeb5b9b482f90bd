"""The process keeps memory that tensors have freed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, resource
import torch
from seqformer.engine import keep_freed_memory

def page_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(10_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before, changed = page_faults(), keep_freed_memory()
after = min(page_faults() for _ in range(4))  # the heap may grow once or twice until blocks fit
print(json.dumps([changed, before, after]))
"""


def test_freed_memory_is_used_again() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    changed, before, after = json.loads(done.stdout.splitlines()[-1])
    if not changed:
        pytest.skip("not glibc")
    assert before > 50
    assert after < before / 10
