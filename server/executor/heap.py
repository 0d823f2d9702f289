"""What malloc does with memory that is freed while a model loads.

ONNX Runtime holds weights three times on their way: as the file has them, as a tensor, packed for its kernels. glibc
maps memory of that size and unmaps it again piece by piece; each unmapping holds up everybody on the core, and each new
mapping costs a page fault for every page (ADR 21). So a load takes from the heap what it freed before, and gives the
rest back at its end.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

# Of glibc's <malloc.h>.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_MMAP_MAX = -4
_FOREVER = (1 << 31) - 1
#: glibc's own, as they are after a large block was freed: once mallopt() was called it moves them no more.
_MMAP_MAX = 65536
_MMAP_THRESHOLD = 32 << 20


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Memory that the block frees stays with the process until the block ends. For a process that does nothing else
    meanwhile; without effect where there is no glibc.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        yield
        return
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, _FOREVER)
    try:
        yield
    finally:
        libc.mallopt(_M_MMAP_MAX, _MMAP_MAX)
        libc.mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD)
        libc.mallopt(_M_TRIM_THRESHOLD, 2 * _MMAP_THRESHOLD)
        libc.malloc_trim(0)
