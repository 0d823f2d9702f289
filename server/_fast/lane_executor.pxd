"""C face of an executor instance's side of a lane."""

from libc.stdint cimport uint32_t, uint64_t

from server._fast.device_turns cimport DeviceTurns
from server._fast.layout cimport Arena, ArenaView, Control
from server._fast.slab_ring cimport Batch
from server._fast.slo_cut cimport BusyMeter
from server._fast.standing_queue cimport StandingQueue


#: What an instance keeps of a lane between its batches.
cdef struct LaneWatch:
    BusyMeter busy
    StandingQueue standing


cdef class LaneExecutor:
    cdef readonly Arena arena
    cdef readonly Control control
    cdef ArenaView* v
    cdef int instance
    cdef int bell
    cdef int worker_bells[64]
    cdef Batch batch               # the present one, from next_batch() to complete()
    cdef LaneWatch watch
    cdef bint is_shared            # SharedLanes takes batches and grants them to next_batch(), one at a time
    cdef bint is_granted
    cdef bint has_turns            # the model runs on several devices
    cdef DeviceTurns turns

    cdef int wait(self) noexcept nogil
    cdef int take_turn(self) noexcept nogil
    cdef void count_late(self, uint64_t run_start_ns, uint64_t now) noexcept nogil
    cdef void sleep(self) noexcept nogil
    cdef void step(self) noexcept nogil
    cdef int wake_owner(self, uint32_t row) except -1
    cdef int set_failure(self, uint32_t row, int code, bytes text) except -1


# How long an instance sleeps at most before it looks by itself.
cdef enum:
    NAP_NS = 1000000000

# Seals the slab that is due and takes its rows, as many as the latency target has: 0, or what ring_seal says.
cdef int take_due(ArenaView* v, int instance, LaneWatch* watch, Batch* batch) noexcept nogil
# Sleeps until the bell rings, at most nap_ns; whether it rang.
cdef bint bell_nap(int bell, uint64_t nap_ns) noexcept nogil
