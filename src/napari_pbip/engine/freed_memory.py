"""Freed memory that stays with the process, for the next batch of a network.

The activations of a network are tens of megabytes each. The C library of Linux (glibc) returns memory of that size to
the system as soon as it is freed, and the system clears every page of it before the next batch gets it again. For
batches of 16 tiles that took a fifth of the processor's time (``benchmarks/freed_memory.py``).
"""

from __future__ import annotations

import ctypes
import platform
from functools import cache

_MEGABYTE = 2**20
_TRIM_THRESHOLD = -1, 512 * _MEGABYTE
"""What may be free at the end of the heap before it is returned. This and the following are parameters of ``mallopt``,
as malloc.h numbers them, with their values."""
_TOP_PAD = -2, 64 * _MEGABYTE
"""By how much a heap grows, and what that of a thread keeps at its end."""
_MMAP_THRESHOLD = -3, 32 * _MEGABYTE
"""From which size pieces are taken from the system one by one, and returned; it cannot be set higher."""


@cache
def keep_freed_memory() -> None:
    """Let the C library keep up to half a gigabyte of freed memory; other systems than Linux are left as they are."""
    if platform.libc_ver()[0] != "glibc":
        return
    library = ctypes.CDLL(None)
    for parameter, value in (_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD):
        library.mallopt(parameter, value)
