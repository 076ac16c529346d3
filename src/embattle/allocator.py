"""Keeps the C library from handing freed memory back to the system after every step, only to fetch it again in the next.

Activations and gradients of a training step are a few megabytes each, and glibc returns blocks of that size to the kernel
as soon as they are free. Fetching them again means clearing every page. What that takes of a step, and what keeping it
costs in memory, is measured in docs/speed.md.
"""

from __future__ import annotations

import ctypes
import os
import platform

# From glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# Freed memory at the top of a heap that is kept; glibc takes an int.
_KEPT_BYTES = 2**31 - 1
# Larger blocks go back at once, so that one large gallery does not stay; glibc takes no more than this.
_LARGEST_KEPT_BLOCK = 32 * 2**20
_USERS_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Asks glibc to keep freed memory for the process, unless the user's environment has settings of its own.

    Returns:
        Whether it was asked and agreed; False under other C libraries, where nothing is changed.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in _USERS_SETTINGS):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT_BLOCK)) and bool(mallopt(_TRIM_THRESHOLD, _KEPT_BYTES))
