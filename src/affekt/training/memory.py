"""Keep freed memory in the training process instead of returning it to the operating system."""

from __future__ import annotations

import ctypes
import functools
import os
import sys

MMAP_MAX, TRIM_THRESHOLD = -4, -1
"""Parameters of `mallopt`, as in malloc.h."""
USER_SETTINGS = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
"""Environment variables with which a user configures the allocator."""


@functools.cache
def keep_freed_memory() -> bool:
    """Make the C library reuse freed memory, and return whether it does.

    Every training step allocates the same large blocks. The GNU C library returns blocks of 32 MiB and more to the operating
    system, which zeroes them when they are allocated again. On a CPU this took a third of a training step of the vanilla
    Transformer with 32 utterances of 326 frames. Keeping the memory increases fragmentation: in the same measurement, peak
    memory rose from 5.6 to 8.0 GiB. Nothing is changed if the user configured the allocator in the environment, for example
    with GLIBC_TUNABLES=glibc.malloc.trim_threshold=131072.
    """
    if sys.platform != "linux" or any(name in os.environ for name in USER_SETTINGS):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt") or not hasattr(library, "gnu_get_libc_version"):
        return False
    return bool(library.mallopt(MMAP_MAX, 0)) and bool(library.mallopt(TRIM_THRESHOLD, -1))
