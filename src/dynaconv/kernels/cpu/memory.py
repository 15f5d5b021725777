"""Keep freed memory in the process, because page faults can cost more time than the computation.

The kernels of a batch, and every activation, are large blocks that are freed and allocated in every step. glibc returns
each block to the system and gets it back page by page. Measured: mixing 75 MB of kernels takes 62 ms if the output is
newly mapped memory, and 12 ms if it is memory that the process already has (docs/performance.md).
"""

from __future__ import annotations

import ctypes
import sys

# <malloc.h>
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_LARGEST = 2**31 - 1

_kept = False


def keep_freed_memory() -> bool:
    """Tell the C library to keep freed memory, for the rest of this process; return whether it does.

    Meant for programs that train or serve. The peak of memory does not change, but memory use does not fall after the
    peak. The commands of this project call this at their start. It has an effect with glibc only; jemalloc and tcmalloc
    keep memory by default.
    """
    global _kept
    if sys.platform.startswith("linux") and not _kept:
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            # Never mmap a single block; grow the heap by 64 MiB; trim it only if more than 2 GiB at its end are free.
            options = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _LARGEST), (_M_TOP_PAD, 64 << 20))
            results = [mallopt(option, value) for option, value in options]  # 1 means success
            _kept = all(results)
    return _kept


def keeps_memory() -> bool:
    """Whether :func:`keep_freed_memory` was called with success."""
    return _kept
