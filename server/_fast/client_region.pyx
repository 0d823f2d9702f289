"""A part of a client's shared memory object: tensors are read from it and written to it by copying.

It is never mapped, as its owner may shrink it at any moment: pread and pwrite then come short, where a mapping would
end the process. The object owns the descriptor. Any thread; O(bytes).
"""

import json
import os

from libc.errno cimport EINTR, errno
from libc.stdint cimport int64_t, uint64_t


cdef extern from "<sys/stat.h>" nogil:
    struct stat_t "stat":
        int64_t st_size
    int c_fstat "fstat"(int fd, stat_t* status) noexcept


cdef extern from "<unistd.h>" nogil:
    ssize_t c_pread "pread"(int fd, void* at, size_t n, uint64_t offset) noexcept
    ssize_t c_pwrite "pwrite"(int fd, const void* at, size_t n, uint64_t offset) noexcept


cdef class ClientRegion:
    """See client_region.pyi."""

    def __cinit__(self, int fd, bytes name not None, uint64_t offset, uint64_t byte_size):
        self.fd = fd
        self.name = name
        self.json_name = json.dumps(name.decode(), ensure_ascii=False).encode()
        self.offset = offset
        self.byte_size = byte_size

    def __dealloc__(self):
        if self.fd >= 0:
            os.close(self.fd)

    cdef bint has(self, uint64_t offset, uint64_t n) noexcept nogil:
        return offset <= self.byte_size and n <= self.byte_size - offset

    def read(self, uint64_t offset, uint64_t n):
        """n bytes at an offset; OSError when the object has become too short."""
        if not self.has(offset, n):
            raise ValueError(f"[{offset}, {offset + n}) is outside a region of {self.byte_size} bytes")
        data = bytearray(n)
        cdef char[:] view = data
        if n and region_read(self.fd, self.offset + offset, &view[0], n) < 0:
            raise OSError("the shared memory object has become too short")
        return bytes(data)


cdef int region_read(int fd, uint64_t offset, char* to, size_t n) noexcept nogil:
    cdef size_t done = 0
    cdef ssize_t step
    while done < n:
        step = c_pread(fd, to + done, n - done, offset + done)
        if step < 0 and errno == EINTR:
            continue
        if step <= 0:
            return -1
        done += step
    return 0


cdef int region_write(int fd, uint64_t offset, const char* data, size_t n) noexcept nogil:
    cdef size_t done = 0
    cdef ssize_t step
    cdef stat_t status
    if c_fstat(fd, &status) < 0 or status.st_size < 0 or <uint64_t>status.st_size < offset + n:
        return -1
    while done < n:
        step = c_pwrite(fd, data + done, n - done, offset + done)
        if step < 0 and errno == EINTR:
            continue
        if step <= 0:
            return -1
        done += step
    return 0
