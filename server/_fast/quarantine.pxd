"""Inputs that ended executors: remembered by digest for ten minutes, refused before they run again.

The table lies in the arena; executors add, workers look. Lane.quarantined tells workers whether there is anything to
look for, so a healthy lane pays one load per request. Torn entries cannot matter: an entry is a digest first, its
expiry second.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from server._fast.atomics cimport half_store, relaxed_load, relaxed_store, word_store
from server._fast.layout cimport MODE_ROWS, MODE_SHAPED, QUARANTINE_ENTRIES, ArenaView, TensorShape, input_shape


cdef inline uint64_t mix_bytes(uint64_t seed, const char* p, uint64_t n) noexcept nogil:
    cdef uint64_t h = seed ^ (n * <uint64_t>0x9E3779B97F4A7C15)
    cdef uint64_t word
    while n >= 8:
        memcpy(&word, p, 8)
        h = (h ^ word) * <uint64_t>0xFF51AFD7ED558CCD
        h ^= h >> 32
        p += 8
        n -= 8
    while n > 0:
        h = (h ^ <uint8_t>p[0]) * <uint64_t>0x100000001B3
        p += 1
        n -= 1
    h ^= h >> 29
    return h * <uint64_t>0xC4CEB9FE1A85EC53


cdef inline uint64_t row_digest(ArenaView* v, uint32_t slab, uint32_t row) noexcept nogil:
    """A digest of the row's inputs; never 0. O(bytes)."""
    cdef uint64_t h = 0x243F6A8885A308D3
    cdef uint32_t i, skipped
    cdef char* data = v.data + slab * v.data_stride
    cdef TensorShape* shape
    for i in range(v.header.input_count):
        if v.mode == MODE_ROWS:
            h = mix_bytes(h, data + v.tensors[i].slab_offset + row * v.tensors[i].row_bytes, v.tensors[i].row_bytes)
            continue
        shape = input_shape(v, slab, i)
        # dims[0] of a shaped slab is its capacity, not the row's. In single mode the row is 0.
        skipped = 1 if v.mode == MODE_SHAPED else 0
        h = mix_bytes(h, <const char*>(shape.dims + skipped), 8 * (shape.rank - skipped))
        h = mix_bytes(h, data + shape.offset + row * shape.bytes, shape.bytes)
    return h | 1


cdef inline void quarantine_add(ArenaView* v, uint64_t digest, uint64_t now_ns, uint64_t until_ns) noexcept nogil:
    """Remembers a digest, over the entry that expires first."""
    cdef int i, at = 0
    for i in range(QUARANTINE_ENTRIES):
        if relaxed_load(&v.quarantine[i].digest) == digest or relaxed_load(&v.quarantine[i].until_ns) <= now_ns:
            at = i
            break
        if relaxed_load(&v.quarantine[i].until_ns) < relaxed_load(&v.quarantine[at].until_ns):
            at = i
    relaxed_store(&v.quarantine[at].until_ns, until_ns)
    word_store(&v.quarantine[at].digest, digest)
    half_store(&v.lane.quarantined, 1)


cdef inline bint quarantine_has(ArenaView* v, uint64_t digest, uint64_t now_ns) noexcept nogil:
    cdef int i
    for i in range(QUARANTINE_ENTRIES):
        if relaxed_load(&v.quarantine[i].digest) == digest and relaxed_load(&v.quarantine[i].until_ns) > now_ns:
            return True
    return False
