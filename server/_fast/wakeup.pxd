"""C face of the doorbells: who sleeps says so in shared memory, who wakes writes an eventfd only then.

Executor instance i sleeps behind bit i of Lane.sleepers and its own eventfd; a worker behind bell_pending of its page
and its eventfd in the event loop. Whoever takes the flag writes; everybody else saves the system call. A process that
dies
between the two leaves a flag without a write: the supervisor rings every bell after every death.
"""

from libc.stdint cimport uint64_t
from posix.time cimport timespec

from server._fast.atomics cimport full_fence, half_exchange, word_and, word_cas, word_load, word_or
from server._fast.layout cimport Lane, WorkerPage


cdef extern from "<unistd.h>" nogil:
    ssize_t c_write "write"(int fd, const void* data, size_t n) noexcept
    ssize_t c_read "read"(int fd, void* data, size_t n) noexcept

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int c_ppoll "ppoll"(pollfd* fds, unsigned long count, const timespec* limit, const void* mask) noexcept
    int POLLIN


cdef inline int bell_ring(int fd) noexcept nogil:
    """Writes an eventfd. 0, or -1 when it is closed; a full counter already wakes its reader."""
    cdef uint64_t one = 1
    return 0 if c_write(fd, &one, 8) == 8 else -1


cdef inline void bell_clear(int fd) noexcept nogil:
    cdef uint64_t count
    c_read(fd, &count, 8)


cdef inline int lane_wake(Lane* lane, const int* instance_fds) noexcept nogil:
    """Wakes one sleeping instance, if one sleeps: 1 when an eventfd was written. Call after publishing."""
    cdef uint64_t sleepers
    cdef int instance
    full_fence(&lane.sleepers)
    while True:
        sleepers = word_load(&lane.sleepers)
        if sleepers == 0:
            return 0
        instance = 0
        while not (sleepers >> instance) & 1:
            instance += 1
        if word_cas(&lane.sleepers, sleepers, sleepers & (sleepers - 1)):
            bell_ring(instance_fds[instance])
            return 1


cdef inline void lane_sleep_begin(Lane* lane, int instance) noexcept nogil:
    """Says that the instance is about to sleep. Look for work once more before sleeping."""
    word_or(&lane.sleepers, <uint64_t>1 << instance)


cdef inline void lane_sleep_end(Lane* lane, int instance) noexcept nogil:
    word_and(&lane.sleepers, ~(<uint64_t>1 << instance))


cdef inline void worker_wake(WorkerPage* page, int fd) noexcept nogil:
    """Wakes a worker unless a wake-up is already on its way."""
    if half_exchange(&page.bell_pending, 1) == 0:
        bell_ring(fd)


cdef inline void worker_awake(WorkerPage* page, int fd) noexcept nogil:
    """The worker heard the bell: from here on a new completion rings again. Look for completions after this."""
    bell_clear(fd)
    half_exchange(&page.bell_pending, 0)
