"""C face of the standing queue: whether a lane's executor always leaves slabs waiting, so that the newest goes first.

Kept by each instance for itself (StandingQueue), said in the lane's newest_first, which ring_due reads. Nothing of it
outlives the overload: one batch after which nobody waits, and it is forgotten. O(slabs) for each batch, no clock.
"""

from libc.stdint cimport uint32_t, uint64_t

from server._fast.atomics cimport relaxed_load_half, relaxed_store_half, word_load
from server._fast.layout cimport OWNER_NONE, ArenaView
from server._fast.slab_ring cimport SLAB_OPEN, SLAB_SEALED, slab_owner, slab_state


#: After every batch for so long another slab has waited.
cdef enum:
    STANDING_NS = 100000000

cdef struct StandingQueue:
    uint64_t since_ns    # each batch since then has left another slab waiting; 0: the last one has not


cdef inline void queue_stands_no_more(ArenaView* v, StandingQueue* queue) noexcept nogil:
    queue.since_ns = 0
    # Workers read other words of this line with every request.
    if relaxed_load_half(&v.lane.newest_first):
        relaxed_store_half(&v.lane.newest_first, 0)


cdef inline void queue_watch(ArenaView* v, StandingQueue* queue, uint64_t now_ns) noexcept nogil:
    """After a slab was sealed: while others have been left behind for an interval, the newest goes first."""
    cdef uint64_t word
    cdef uint32_t slab, state
    for slab in range(v.slab_count):
        word = word_load(&v.slabs[slab].word)
        state = slab_state(word)
        if state == SLAB_OPEN or (state == SLAB_SEALED and slab_owner(word) == OWNER_NONE):
            if queue.since_ns == 0:
                queue.since_ns = now_ns
            elif now_ns - queue.since_ns > <uint64_t>STANDING_NS and not relaxed_load_half(&v.lane.newest_first):
                relaxed_store_half(&v.lane.newest_first, 1)
            return
    queue_stands_no_more(v, queue)
