"""What the C library does with memory that tensors no longer need."""

from __future__ import annotations

import ctypes

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h
_SETTINGS = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: -1}  # no block is mapped by itself; nothing is given back


def keep_freed_memory() -> bool:
    """Lets this process keep freed memory for its next tensors, instead of giving it back every time.

    glibc maps large blocks anew for every tensor and unmaps them with it, and the system clears every page of
    them again: on CPUs that can take longer than the arithmetic. Other C libraries stay as they are.

    Returns:
        whether anything was changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all(mallopt(option, value) for option, value in _SETTINGS.items())
