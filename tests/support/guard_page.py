"""Memory with an unmapped page at its end or its beginning: a read one byte outside ends the process at once."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import contextmanager

PAGE_BYTES = mmap.PAGESIZE
_PROT_NONE = 0
_PROT_READ_WRITE = 3


def _protect(area: mmap.mmap, offset_bytes: int, protection: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    anchor = ctypes.c_char.from_buffer(area)
    address = ctypes.addressof(anchor) + offset_bytes
    del anchor
    if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(PAGE_BYTES), protection):
        raise OSError(ctypes.get_errno(), "mprotect failed")


class GuardedMemory:
    """Room for max_bytes between two unmapped pages."""

    def __init__(self, max_bytes: int) -> None:
        self.room_bytes = -(-max_bytes // PAGE_BYTES) * PAGE_BYTES
        self.area = mmap.mmap(-1, self.room_bytes + 2 * PAGE_BYTES)
        _protect(self.area, 0, _PROT_NONE)
        _protect(self.area, PAGE_BYTES + self.room_bytes, _PROT_NONE)

    @contextmanager
    def at_end(self, data: bytes) -> Iterator[memoryview]:
        """The bytes, the last of them being the last readable one."""
        yield from self._placed(data, PAGE_BYTES + self.room_bytes - len(data))

    @contextmanager
    def at_begin(self, data: bytes) -> Iterator[memoryview]:
        """The bytes, the first of them being the first readable one."""
        yield from self._placed(data, PAGE_BYTES)

    def _placed(self, data: bytes, offset_bytes: int) -> Iterator[memoryview]:
        if len(data) > self.room_bytes:
            raise ValueError(f"expected at most {self.room_bytes} bytes, got {len(data)}")
        view = memoryview(self.area)[offset_bytes : offset_bytes + len(data)]
        view[:] = data
        try:
            yield view
        finally:
            view.release()

    def close(self) -> None:
        _protect(self.area, 0, _PROT_READ_WRITE)
        _protect(self.area, PAGE_BYTES + self.room_bytes, _PROT_READ_WRITE)
        self.area.close()
