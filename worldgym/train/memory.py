"""What a training asks of the C library's allocator."""

import ctypes
import sys

MMAP_MAX, TRIM_THRESHOLD = -4, -1
"""`mallopt(3)`: how many blocks may be mapped one by one; from how much free memory on some is given back."""
NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Keep the memory of tensors that are freed, for those that come next; returns whether the allocator can.

    A step frees the large tensors of the step before. By default glibc gives them back to the kernel, which clears
    every page that it hands out again; on a CPU this can take longer than the arithmetic (docs/decisions.md).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None  # glibc has it
    return mallopt is not None and all(mallopt(*option) for option in ((MMAP_MAX, 0), (TRIM_THRESHOLD, NEVER)))
