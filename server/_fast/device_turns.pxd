"""C face of device turns: which device of a model takes the batch that is due, and what its runs take there."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from server._fast.layout cimport ArenaView, CostTable


cdef enum:
    TURN_DEVICES = 8       # MAX_DEVICES of server/option_values.py
    TURN_INSTANCES = 32    # MAX_INSTANCES of layout.h

#: A device as the next batch sees it: when it ends what it does (not after now: idle), and what the batch takes there
#: (0: not measured).
cdef struct DeviceLoad:
    uint64_t free_ns
    uint64_t run_ns

#: Written by its instance, read by all: a cache line of its own.
cdef struct TurnInstance:
    uint64_t busy_until_ns    # expected end of what it runs, 0: it looks for a batch
    uint8_t pad[56]


cdef class DeviceTurns:
    cdef TurnInstance instances[TURN_INSTANCES]
    cdef CostTable tables[TURN_DEVICES]
    cdef ArenaView views[TURN_DEVICES]    # of which there is the cost table alone
    cdef uint64_t members[TURN_DEVICES]   # instances of the device, as bits of Lane.sleepers
    cdef uint64_t ran_ns[TURN_DEVICES]    # end of the last run that was learnt
    cdef uint32_t device_of[TURN_INSTANCES]
    cdef int bells[TURN_INSTANCES]
    cdef uint32_t instance_count
    cdef uint32_t device_count
    cdef uint64_t held_total

    cdef uint64_t turn_hold(self, ArenaView* v, uint32_t instance, uint32_t slab, uint64_t word,
                            uint64_t now_ns) noexcept nogil
    cdef uint64_t turn_wait(self, ArenaView* v, uint32_t instance, uint32_t rows, uint64_t since_ns,
                            uint64_t now_ns) noexcept nogil
    cdef void turn_begins(self, uint32_t instance, uint32_t rows, uint64_t now_ns) noexcept nogil
    cdef void turn_ends(self, uint32_t instance, uint64_t now_ns) noexcept nogil
    cdef void turn_looks(self, uint32_t instance) noexcept nogil
    cdef void turn_ran(self, uint32_t instance, uint32_t rows, uint64_t ns, uint64_t now_ns) noexcept nogil
    cdef uint64_t run_ns(self, uint32_t device, uint32_t rows) noexcept nogil
    cdef void forget(self, uint32_t device) noexcept nogil
    cdef bint wake_one(self, ArenaView* v, uint32_t device) noexcept nogil
    cdef int check(self, uint32_t device) except -1


# Index of the idle device that takes a batch that has waited for so long; -1: a busy one would answer it sooner.
cdef int next_device(uint64_t now_ns, uint64_t waited_ns, const DeviceLoad* loads, uint32_t count) noexcept nogil
