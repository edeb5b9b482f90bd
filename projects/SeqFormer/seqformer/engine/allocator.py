"""Setting of the C library's memory allocator."""

from __future__ import annotations

import ctypes

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h
_SETTINGS = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: -1}  # never map blocks separately, never return memory


def keep_freed_memory() -> bool:
    """Makes this process keep freed memory for later tensors instead of returning it to the system.

    By default glibc maps memory for every large tensor and unmaps it afterwards, and the system clears every
    page each time. On CPUs this can take longer than the arithmetic. Other C libraries are not changed.

    Returns:
        whether the setting was changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all(mallopt(option, value) for option, value in _SETTINGS.items())
