"""C face of an executor instance that serves several lanes."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from server._fast.lane_executor cimport LaneWatch
from server._fast.lane_sharing cimport Offer, Sharing
from server._fast.layout cimport ArenaView
from server._fast.slab_ring cimport Batch


#: One lane of this instance.
cdef struct SharedLane:
    ArenaView* v
    LaneWatch* watch
    Batch* batch


cdef class SharedLanes:
    cdef readonly Sharing sharing
    cdef int instance
    cdef int bell
    cdef int bells[32]             # of all instances
    cdef uint32_t is_interrupted
    cdef dict executors            # number -> LaneExecutor, which owns what `lanes` points to
    cdef SharedLane lanes[256]     # by number; v is NULL where there is none
    cdef uint32_t numbers[256]     # those that there are
    cdef uint32_t count
    cdef int present               # the lane that runs, -1: none
    cdef int64_t charged_ns
    cdef uint64_t granted_ns

    cdef int wait(self) noexcept nogil
    cdef int take(self, SharedLane* lane) noexcept nogil
    cdef uint32_t look(self, Offer* due, uint64_t* wait_until_ns) noexcept nogil
    cdef void wake_another(self, const Offer* due, uint32_t count, uint32_t number) noexcept nogil
    cdef void sleep(self) noexcept nogil
    cdef int list_numbers(self) except -1
