"""C face of slabs that are kept for one owner until their rows are filled."""

from libc.stdint cimport uint32_t, uint64_t

from server._fast.layout cimport ArenaView
from server._fast.slab_ring cimport Claim


cdef int ring_reserve(ArenaView* v, uint32_t owner, uint64_t now_ns, Claim* out) noexcept nogil
cdef void ring_open_reserved(ArenaView* v, uint32_t owner, uint64_t now_ns, const Claim* claim) noexcept nogil
cdef void ring_give_up_reserved(ArenaView* v, uint32_t owner, const Claim* claim) noexcept nogil
