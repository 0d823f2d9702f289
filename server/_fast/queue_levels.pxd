"""C face of priority levels: which level a request is of, whether its queue takes it, when its slab goes behind others.

A level is kept by each slab: its opener writes it down, and only requests of that level join. So the rules of the ring
(slab_ring.pxd) are those of a lane without levels, but for two: a level holds no more slabs than it was given, so that
a flood of one leaves the others theirs, and ring_due takes the slab of the lowest rank.

It knows slab words and the arena's table of levels, which is written once before the first claim; it does not know
clocks or requests. Counts are taken from words that others move meanwhile: a bound may be passed by what several
workers claim in the same instant. O(1), or O(slabs) where a bound is checked.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from server._fast.atomics cimport relaxed_load, relaxed_load_half, word_cas, word_load
from server._fast.layout cimport OWNER_NONE, ArenaView, QueueLevel
from server._fast.slab_ring cimport (
    SLAB_FREE,
    SLAB_OPEN,
    SLAB_SEALED,
    slab_claimed,
    slab_owner,
    slab_state,
)


#: A century: longer is no timeout, and would not fit in nanoseconds.
cdef enum:
    MAX_TIMEOUT_US = 3155760000000000
#: Half of it. Longer timeouts are cut to it.
cdef enum:
    LONGEST_TIMEOUT_US = 1577880000000000


cdef inline uint32_t level_of(ArenaView* v, uint64_t priority) noexcept nogil:
    """The level, from 0, of a request with this priority: 1 is the first; 0 and what is no level are the default."""
    if v.level_count == 1:
        return 0
    if priority == 0 or priority > v.level_count:
        return v.header.default_level - 1
    return <uint32_t>priority - 1


cdef inline void level_times(ArenaView* v, uint32_t level, int64_t timeout_us, uint64_t now_ns, uint64_t* deadline_ns,
                             uint64_t* stale_ns) noexcept nogil:
    """When a request is refused, and when it goes behind the others; 0: never. timeout_us: its own, or 0."""
    cdef QueueLevel* queue = &v.levels[level]
    cdef int64_t default_us = <int64_t>(queue.timeout_ns // 1000)
    deadline_ns[0] = 0
    stale_ns[0] = 0
    if default_us and not (queue.allow_override and 0 < timeout_us < default_us):
        timeout_us = default_us
    if 0 < timeout_us < <int64_t>MAX_TIMEOUT_US:
        timeout_us = min(timeout_us, <int64_t>LONGEST_TIMEOUT_US)
        (stale_ns if queue.delays else deadline_ns)[0] = now_ns + <uint64_t>timeout_us * 1000


cdef inline bint level_is_full(ArenaView* v, uint32_t level) noexcept nogil:
    """Whether as many rows of the level wait as may. Rows that run do not count."""
    cdef uint32_t slab, state, rows = 0, most = v.levels[level].max_rows
    cdef uint64_t word
    if most == 0:
        return False
    for slab in range(v.slab_count):
        word = word_load(&v.slabs[slab].word)
        state = slab_state(word)
        if (state == SLAB_OPEN or (state == SLAB_SEALED and slab_owner(word) == OWNER_NONE)) and (
            v.level_count == 1 or relaxed_load_half(&v.slabs[slab].level) == level
        ):
            rows += slab_claimed(word)
            if rows >= most:
                return True
    return False


cdef inline bint level_has_slab(ArenaView* v, uint32_t level) noexcept nogil:
    """Whether the level may open another slab."""
    cdef uint32_t slab, held = 0
    for slab in range(v.slab_count):
        if slab_state(word_load(&v.slabs[slab].word)) != SLAB_FREE and relaxed_load_half(&v.slabs[slab].level) == level:
            held += 1
    return held < v.levels[level].slab_count


cdef inline void level_stale_after(ArenaView* v, uint32_t slab, uint64_t stale_ns) noexcept nogil:
    """Says when rows that the caller has claimed in this slab are past their timeout, 0: never: see slab_rank."""
    cdef uint64_t* at = &v.slabs[slab].stale_ns
    cdef uint64_t seen, until_ns = stale_ns if stale_ns else <uint64_t>-1
    while True:
        seen = relaxed_load(at)
        if seen >= until_ns or word_cas(at, seen, until_ns):
            return


cdef inline uint32_t slab_rank(ArenaView* v, uint32_t slab, uint64_t now_ns) noexcept nogil:
    """What comes before age: slabs of a lower rank run first.

    A slab in which every row is past its timeout goes behind the others of its level; if such rows are refused, it goes
    before all: that costs nothing, and its clients would else wait for the end of what may never end.
    """
    cdef uint64_t stale_ns
    cdef uint32_t level
    if not v.is_ranked:
        return 0
    stale_ns = relaxed_load(&v.slabs[slab].stale_ns)
    level = relaxed_load_half(&v.slabs[slab].level)
    if stale_ns == 0 or now_ns < stale_ns:
        return 2 * level + 1
    return 2 * level + 2 if v.levels[level].delays else 0
