"""What the supervisor does with a ring when a process has died: the worker's rows, the executor's slabs.

It knows the words and their transitions (slab_ring.pxd); it does not know processes: the caller knows that the owner or
the executor is dead. The others go on meanwhile, so everything here is a compare-and-swap. The arena's memory belongs
to its Segment. O(slabs * rows).
"""

from libc.stdint cimport uint32_t, uint64_t

from server._fast.atomics cimport relaxed_load_half, relaxed_store_half, word_cas, word_load, word_store
from server._fast.layout cimport OWNER_NONE, ArenaView
from server._fast.slab_ring cimport (
    ROW_ABANDONED,
    ROW_DONE,
    ROW_FAILED,
    ROW_FILLING,
    ROW_FREE,
    ROW_ORPHAN,
    ROW_READY,
    ROW_RUNNING,
    SLAB_FREE,
    SLAB_OPEN,
    SLAB_OPENING,
    SLAB_RUNNING,
    SLAB_SEALED,
    ring_recycle,
    ring_stamp,
    row_at,
    row_moved,
    row_owner,
    row_state,
    slab_claimed,
    slab_owner,
    slab_state,
    slab_word,
    word_generation,
)


cdef uint32_t ring_reap_owner(ArenaView* v, uint32_t owner) noexcept nogil:
    """Takes back every row of a dead worker: unfilled and waiting ones are abandoned, finished ones freed, running ones
    orphaned. How many there were. Before the owner id is used again."""
    cdef uint32_t slab, row, state, target, reaped = 0
    cdef uint64_t word
    cdef uint64_t* at
    for slab in range(v.slab_count):
        word = word_load(&v.slabs[slab].word)
        if slab_state(word) == SLAB_OPENING and slab_owner(word) == owner:
            word_cas(&v.slabs[slab].word, word, slab_word(SLAB_FREE, 0, 0, 0, word_generation(word)))
            reaped += 1
            continue
        while slab_state(word) == SLAB_OPEN:
            ring_stamp(v, slab, word)
            if word_load(&v.slabs[slab].word) == word:
                break
            word = word_load(&v.slabs[slab].word)
        for row in range(v.row_capacity):
            at = row_at(v, slab, row)
            while True:
                word = word_load(at)
                state = row_state(word)
                if row_owner(word) != owner:
                    break
                if state == ROW_FILLING or state == ROW_READY:
                    target = ROW_ABANDONED
                elif state == ROW_RUNNING:
                    target = ROW_ORPHAN
                elif state == ROW_DONE or state == ROW_FAILED:
                    target = ROW_FREE
                else:
                    break
                if word_cas(at, word, row_moved(word, target)):
                    reaped += 1
                    break
        ring_recycle(v, slab)
    return reaped


cdef uint32_t ring_recover_executor(ArenaView* v) noexcept nogil:
    """Makes what a dead executor held due again, attempt + 1 for slabs that ran. How many slabs that were."""
    cdef uint32_t slab, row, recovered = 0
    cdef uint64_t word, at_word
    cdef uint64_t* at
    for slab in range(v.slab_count):
        word = word_load(&v.slabs[slab].word)
        if slab_state(word) == SLAB_RUNNING or slab_state(word) == SLAB_SEALED:
            for row in range(slab_claimed(word)):
                at = row_at(v, slab, row)
                while True:
                    at_word = word_load(at)
                    if row_state(at_word) == ROW_RUNNING:
                        if word_cas(at, at_word, row_moved(at_word, ROW_READY)):
                            break
                    elif row_state(at_word) == ROW_ORPHAN:
                        if word_cas(at, at_word, row_moved(at_word, ROW_ABANDONED)):
                            break
                    else:
                        break
            if slab_state(word) == SLAB_RUNNING:
                relaxed_store_half(&v.slabs[slab].attempts, relaxed_load_half(&v.slabs[slab].attempts) + 1)
            word_cas(&v.slabs[slab].word, word,
                     slab_word(SLAB_SEALED, OWNER_NONE, 0, slab_claimed(word), word_generation(word)))
            recovered += 1
        else:
            ring_recycle(v, slab)
    word_store(&v.lane.sleepers, 0)
    return recovered
