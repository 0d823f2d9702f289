"""Fills a pipe from a file without the interpreter.

Whoever reads from the pipe may hold the interpreter's lock meanwhile, as some builds of ONNX Runtime do while they load
a model: nothing here waits for it once it has begun. Pages of the file go into the pipe by splice(), or are copied
where a file system or a sandbox has no splice(). Owns none of the descriptors but the pipe's end, which it closes. One
thread for each call; O(bytes), the pipe holds 64 KiB.
"""

from libc.errno cimport EINTR, EINVAL, ENOSYS, EPIPE, errno
from libc.stdint cimport int64_t, uint64_t


cdef extern from "<fcntl.h>" nogil:
    ssize_t c_splice "splice"(int source, int64_t* at, int output, int64_t* to, size_t n, unsigned int flags) noexcept


cdef extern from "<unistd.h>" nogil:
    ssize_t c_pread "pread"(int fd, void* at, size_t n, int64_t offset) noexcept
    ssize_t c_write "write"(int fd, const void* at, size_t n) noexcept
    int c_close "close"(int fd) noexcept


cdef enum:
    STEP_BYTES = 64 * 1024
    COPY_BYTES = 16 * 1024


cdef int write_all(int output, const char* at, size_t n) noexcept nogil:
    cdef ssize_t step
    while n:
        step = c_write(output, at, n)
        if step < 0 and errno != EINTR:
            return -1
        if step > 0:
            at += step
            n -= step
    return 0


cdef int fill(int source, int output, bint may_splice) noexcept nogil:
    """0 at the end of the file or when nobody reads any more, else the errno."""
    cdef char piece[COPY_BYTES]
    cdef int64_t position = 0
    cdef ssize_t step
    while True:
        if may_splice:
            # It moves the position by itself.
            step = c_splice(source, &position, output, NULL, STEP_BYTES, 0)
            if step < 0 and (errno == EINVAL or errno == ENOSYS):
                may_splice = False
                continue
        else:
            step = c_pread(source, piece, COPY_BYTES, position)
            if step > 0 and write_all(output, piece, step) < 0:
                step = -1
            elif step > 0:
                position += step
        if step == 0:
            return 0
        if step < 0 and errno != EINTR:
            return 0 if errno == EPIPE else errno


def feed(int source, int output, int begun, bint may_splice=True):
    """Writes the file `source` to the pipe `output` and closes that; what went wrong as an errno, or 0. `begun`: an
    eventfd that is raised as soon as the caller's thread does not need the interpreter any more.
    """
    cdef uint64_t one = 1
    cdef int code
    with nogil:
        c_write(begun, &one, sizeof(one))
        code = fill(source, output, may_splice)
        c_close(output)
    return code
