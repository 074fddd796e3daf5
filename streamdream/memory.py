"""Memory that was freed is kept for the next frame.

Every frame asks for the same large pieces again. By default the C library gives such pieces back
to the system at once, and the system hands them out page by page, each cleared: that is a fifth of
the time of a network that paints.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

# Of glibc's malloc.h: parameters of mallopt.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
LARGEST = 32 * 2**20  # bytes of a piece; glibc takes no more
SPARE = 512 * 2**20  # bytes that may lie idle


@cache
def keep_freed() -> bool:
    """Let this process keep what it frees; whether that can be told to its C library (glibc's)."""
    if sys.platform != "linux":
        return False
    tell = getattr(ctypes.CDLL(None), "mallopt", None)
    return tell is not None and bool(tell(MMAP_THRESHOLD, LARGEST) and tell(TRIM_THRESHOLD, SPARE))
