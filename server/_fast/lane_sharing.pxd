"""C face of sharing: run time that each lane of an executor process has had, and which of them goes next."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from server._fast.layout cimport ArenaView


cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t* mutex, const void* attributes) noexcept
    int pthread_mutex_destroy(pthread_mutex_t* mutex) noexcept
    int pthread_mutex_lock(pthread_mutex_t* mutex) noexcept
    int pthread_mutex_unlock(pthread_mutex_t* mutex) noexcept

cdef enum:
    MAX_SHARED_LANES = 256

cdef struct LaneShare:
    int64_t served_ns
    int64_t run_ns

#: A lane with a batch that is due; deadline_ns 0: none of its requests has a deadline.
cdef struct Offer:
    uint32_t lane
    uint64_t deadline_ns


cdef class Sharing:
    cdef pthread_mutex_t lock
    cdef uint32_t lane_count
    cdef int64_t clock_ns
    cdef LaneShare shares[256]

    cdef uint32_t take_lane(self, const Offer* due, uint32_t count, uint64_t now_ns, int64_t* charged_ns) noexcept nogil
    cdef void lane_ran(self, uint32_t lane, int64_t charged_ns, int64_t ns) noexcept nogil
    cdef void lane_back(self, uint32_t lane, int64_t charged_ns) noexcept nogil
    cdef bint goes_before(self, const Offer* a, const Offer* b) noexcept nogil
    cdef int check(self, uint32_t lane) except -1


# The earliest deadline of the rows in a slab that wait to run; 0: none.
cdef uint64_t slab_deadline(ArenaView* v, uint32_t slab, uint64_t word) noexcept nogil
