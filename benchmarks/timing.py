"""Times, rates and memory of a device, shared by the other programs here."""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from seqformer.cli.env import cpu_name

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def device_name(device: torch.device) -> str:
    """Returns the name of the GPU or the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{cpu_name()}, {os.cpu_count()} cores"


def synchronise(device: torch.device) -> None:
    """Waits until the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def precision(name: str, device: torch.device) -> Iterator[None]:
    """Computes in one of ``PRECISIONS``; bf16 and fp16 are autocast. TF32 is only on in tf32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = name == "tf32"
    dtype = _AUTOCAST.get(name)
    try:
        with torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def seconds_of(
    function: Callable[[], object],
    device: torch.device,
    *,
    repeats: int,
    warm_up: int = 1,
    limit: float = float("inf"),
) -> list[float]:
    """Returns the seconds of each call. After ``limit`` seconds no further call starts, except the first."""
    seconds: list[float] = []
    begin = time.perf_counter()
    for turn in range(warm_up + repeats):
        if turn > warm_up and time.perf_counter() - begin > limit:
            break
        synchronise(device)
        start = time.perf_counter()
        function()
        synchronise(device)
        if turn >= warm_up:
            seconds.append(time.perf_counter() - start)
    return seconds


def seconds_a_call(function: Callable[[], object], device: torch.device, calls: int = 5) -> float:
    """Returns the seconds of a call: of one on a CPU, the mean of ``calls`` in a row on a GPU.

    There they are queued between two events, so that the time to start a kernel only counts where kernels are
    shorter than that.
    """
    if device.type != "cuda":
        start = time.perf_counter()
        function()
        return time.perf_counter() - start
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    first.record()
    for _ in range(calls):
        function()
    last.record()
    torch.cuda.synchronize(device)
    return first.elapsed_time(last) / 1000 / calls


def matmul_rate(device: torch.device, name: str = "fp32", size: int | None = None) -> float:
    """Returns the device's rate of square matrix products, operations per second, best of ten."""
    size = size or (8192 if device.type == "cuda" else 2048)
    dtype = _AUTOCAST.get(name, torch.float32)
    with precision("tf32" if name == "tf32" else "fp32", device):
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        best = min(seconds_of(lambda: a @ b, device, repeats=10))
    return 2 * size**3 / best


def copy_bandwidth(device: torch.device, megabytes: int = 256) -> float:
    """Returns the bytes per second read (and as many written) by a copy within the device, best of ten."""
    source = torch.zeros(megabytes << 18, device=device)
    target = torch.empty_like(source)
    return source.nbytes / min(seconds_of(lambda: target.copy_(source), device, repeats=10))


def reset_peak_memory(device: torch.device) -> None:
    """Forgets the peak so far. That of a CPU process cannot be forgotten."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> float:
    """Returns the peak memory of tensors on a GPU since it was reset, or of this process on a CPU; in GB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    scale = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e9
