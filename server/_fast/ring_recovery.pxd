"""C face of the recovery of a ring: for a worker or an executor that is known to be dead."""

from libc.stdint cimport uint32_t

from server._fast.layout cimport ArenaView


cdef uint32_t ring_reap_owner(ArenaView* v, uint32_t owner) noexcept nogil
cdef uint32_t ring_recover_executor(ArenaView* v) noexcept nogil
