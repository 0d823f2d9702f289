"""C face of an executor instance's side of a lane."""

from libc.stdint cimport uint32_t, uint64_t

from server._fast.layout cimport Arena, ArenaView, Control
from server._fast.slab_ring cimport Batch
from server._fast.slo_cut cimport BusyMeter


cdef class LaneExecutor:
    cdef readonly Arena arena
    cdef readonly Control control
    cdef ArenaView* v
    cdef int instance
    cdef int bell
    cdef int worker_bells[64]
    cdef Batch batch               # the present one, from next_batch() to complete()
    cdef BusyMeter busy

    cdef int wait(self) noexcept nogil
    cdef void sleep(self) noexcept nogil
    cdef void sleep_unpublished(self) noexcept nogil
    cdef void step(self) noexcept nogil
    cdef bint nap(self, uint64_t nap_ns) noexcept nogil
    cdef int wake_owner(self, uint32_t row) except -1
    cdef int set_failure(self, uint32_t row, int code, bytes text) except -1
