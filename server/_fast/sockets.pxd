"""Sending on a socket that somebody else owns. One system call, no waiting, no signal; any thread."""


cdef extern from "<sys/socket.h>" nogil:
    ssize_t c_send "send"(int fd, const void* data, size_t n, int flags) noexcept
    int MSG_NOSIGNAL
    int MSG_DONTWAIT

cdef extern from "<errno.h>" nogil:
    int errno
    int EAGAIN
    int EINTR


cdef inline ssize_t send_some(int fd, const void* data, size_t n) noexcept nogil:
    """How many bytes the kernel took, 0 when it takes none now, -1 when the connection is broken."""
    cdef ssize_t sent = c_send(fd, data, n, MSG_NOSIGNAL | MSG_DONTWAIT)
    if sent < 0 and (errno == EAGAIN or errno == EINTR):
        return 0
    return sent
