"""Keep freed memory in the process: giving large blocks back and fetching them anew can cost more than using them.

The kernels of a batch, and every activation, are large blocks that are freed and allocated in every step. glibc returns
each to the system and gets it back page by page: measured here, mixing 75 MB of kernels takes 62 ms into fresh memory
and 12 ms into memory that is there (docs/performance.md).
"""

from __future__ import annotations

import ctypes
import sys

# <malloc.h>
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_LARGEST = 2**31 - 1

_kept = False


def keep_freed_memory() -> bool:
    """Ask the C library to keep what is freed, for the rest of this process; return whether it will.

    For a program that trains or serves: its peak of memory stays what it is, but it does not fall after the peak. The
    commands of this project do it at their start. Where the C library is not glibc nothing happens; jemalloc and
    tcmalloc keep memory by themselves.
    """
    global _kept
    if sys.platform.startswith("linux") and not _kept:
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            # No block of its own mapping; the heap grows by 64 MiB and shrinks only beyond 2 GiB of free end.
            asked = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _LARGEST), (_M_TOP_PAD, 64 << 20))
            obeyed = [mallopt(option, value) for option, value in asked]  # 1: obeyed
            _kept = all(obeyed)
    return _kept


def keeps_memory() -> bool:
    """Whether :func:`keep_freed_memory` has been called and obeyed."""
    return _kept
