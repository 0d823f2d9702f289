"""C face of the executor's half of the slab ring: seal, take, finish and complete. States: slab_ring.pxd."""

from libc.stdint cimport uint32_t, uint64_t

from server._fast.layout cimport ArenaView
from server._fast.slab_ring cimport Batch


cdef int ring_due(ArenaView* v, uint64_t now_ns, uint32_t* slab_out, uint64_t* word_out,
                  uint64_t* wait_until_ns) noexcept nogil
cdef int ring_seal(ArenaView* v, uint32_t instance, uint64_t now_ns, Batch* out) noexcept nogil
cdef int ring_take(ArenaView* v, uint32_t instance, uint64_t now_ns, bint partial, Batch* batch) noexcept nogil
cdef int ring_take_alone(ArenaView* v, const Batch* batch, uint32_t row) noexcept nogil
cdef void ring_put_back(ArenaView* v, uint32_t slab, uint32_t row) noexcept nogil
cdef void ring_finish_row(ArenaView* v, uint32_t slab, uint32_t row, uint32_t code) noexcept nogil
cdef uint64_t ring_complete(ArenaView* v, uint32_t instance, const Batch* batch) noexcept nogil
