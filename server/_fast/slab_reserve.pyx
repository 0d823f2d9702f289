"""Slabs that are kept for one owner until their rows are filled: for bodies that are received into rows (row_body.pyx).

It knows the slab word and nobody's reasons. The memory is the arena's; whoever dies with a slab leaves it OPENING,
which ring_reap_owner frees. One thread per owner; O(slabs) to reserve, O(rows) to open.
"""

from libc.stdint cimport uint32_t, uint64_t

from server._fast.atomics cimport word_cas, word_load
from server._fast.layout cimport ArenaView, SlabHeader
from server._fast.slab_ring cimport (
    RING_FULL,
    SLAB_FREE,
    SLAB_OPEN,
    SLAB_OPENING,
    Claim,
    new_generation,
    open_slab,
    slab_state,
    slab_word,
    word_generation,
)


cdef int ring_reserve(ArenaView* v, uint32_t owner, uint64_t now_ns, Claim* out) noexcept nogil:
    """Keeps a slab for one owner, who opens it when its rows are filled or gives it up: 0, or RING_FULL.

    RING_FULL too when rows wait in an open slab, since a batch is worth more than a copy, and when less than half of
    the slabs is free: those who fill slowly must leave room for others. Not in a lane with priority levels. Nobody
    else acts on a slab that is being opened, unless its owner dies. Rows mode only.
    """
    cdef uint32_t slab, free_count = 0, found = v.slab_count
    cdef uint64_t word, opening
    cdef SlabHeader* header
    if v.level_count > 1:
        return RING_FULL
    for slab in range(v.slab_count):
        word = word_load(&v.slabs[slab].word)
        if slab_state(word) == SLAB_OPEN:
            return RING_FULL
        if slab_state(word) == SLAB_FREE:
            free_count += 1
            found = min(found, slab)
    if 2 * free_count < v.slab_count or found == v.slab_count:
        return RING_FULL
    header = &v.slabs[found]
    word = word_load(&header.word)
    opening = slab_word(SLAB_OPENING, owner, 0, 0, new_generation(v))
    if slab_state(word) != SLAB_FREE or not word_cas(&header.word, word, opening):
        return RING_FULL
    out.slab = found
    out.first_row = 0
    out.row_count = 0
    out.generation = word_generation(opening)
    return 0


cdef void ring_open_reserved(ArenaView* v, uint32_t owner, uint64_t now_ns, const Claim* claim) noexcept nogil:
    """Opens a reserved slab with its claim.row_count first rows, which are FILLING until published."""
    open_slab(v, claim.slab, owner, 0, claim.row_count, v.row_capacity, now_ns, claim.generation)


cdef void ring_give_up_reserved(ArenaView* v, uint32_t owner, const Claim* claim) noexcept nogil:
    word_cas(&v.slabs[claim.slab].word, slab_word(SLAB_OPENING, owner, 0, 0, claim.generation),
             slab_word(SLAB_FREE, 0, 0, 0, claim.generation))
