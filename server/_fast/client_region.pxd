"""C face of clients' shared memory."""

from libc.stdint cimport uint64_t


cdef class ClientRegion:
    cdef readonly bytes name
    cdef bytes json_name   # as a JSON string, quotes included
    cdef int fd
    cdef uint64_t offset
    cdef readonly uint64_t byte_size
    # Whether [offset, offset + n) of the region lies in it.
    cdef bint has(self, uint64_t offset, uint64_t n) noexcept nogil


# Copies n bytes at an offset of the object: 0, or -1 when it has become too short or cannot be read or written. An
# object that is too short is not made longer, unless it is cut at this very moment.
cdef int region_read(int fd, uint64_t offset, char* to, size_t n) noexcept nogil
cdef int region_write(int fd, uint64_t offset, const char* data, size_t n) noexcept nogil
