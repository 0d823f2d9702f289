"""C face of the slab ring: claim, publish, seal, run, complete, release on the words of an arena.

A slab word holds, from the top: generation 30 | claimed rows 12 | rows of the last claim 12 | owner 6 | state 4.
A row word holds: generation 30 | spare 12 | failure code 8 | attempts 4 | owner 6 | state 4.

Every transition is one compare-and-swap, the state is never stored before what it promises, and whoever dies between
two of them leaves a word that says what is left to do:

    slab   FREE -> OPENING -> OPEN -> SEALED -> RUNNING -> DONE -> FREE (next generation)
                                        +<--------+   its executor died, or rows were still being filled
    row    (old generation) -> FILLING -> READY -> RUNNING -> DONE | FAILED -> FREE
                                  |          |<-------+---+     its executor died, or there was no room for outputs
                                  |          |        +-> ORPHAN -> FREE        owner died while it ran
                                  |          +-> CANCELLED -> FREE              owner took it back
                                  +-> CANCELLED | ABANDONED -> FREE             refused while filling | owner died

A claim moves the slab word first and stamps the row words after it. The slab word names the last claimer and its
rows, and whoever moves the word next completes that stamp, so a claimer that dies between the two is found by its
stamp.
"""

from libc.stdint cimport uint32_t, uint64_t

from server._fast.layout cimport ArenaView
from server._fast.row_shapes cimport RowShapes


cdef enum SlabState:
    SLAB_FREE = 0
    SLAB_OPENING = 1
    SLAB_OPEN = 2
    SLAB_SEALED = 3
    SLAB_RUNNING = 4
    SLAB_DONE = 5

cdef enum RowState:
    ROW_FREE = 0
    ROW_FILLING = 1
    ROW_READY = 2
    ROW_RUNNING = 3
    ROW_DONE = 4
    ROW_FAILED = 5
    ROW_CANCELLED = 6
    ROW_ABANDONED = 7
    ROW_ORPHAN = 8

#: Generations are 1 to this, and then 1 again.
cdef enum:
    GENERATION_MASK = (1 << 30) - 1

#: A slab that so many executors died with is run row by row.
cdef enum:
    ALONE_ATTEMPTS = 1

#: A row that so many executors died with, running it alone, is poison.
cdef enum:
    POISON_ATTEMPTS = 2

#: What a try can say instead of success.
cdef enum RingCode:
    RING_FULL = -1
    RING_TOO_LARGE = -2
    RING_EMPTY = -3
    RING_WAIT = -4
    RING_UNPUBLISHED = -5

#: Row failure codes; InferError codes of infer_spec plus what only an executor can say.
cdef enum FailureCode:
    FAILURE_NONE = 0
    FAILURE_UNAVAILABLE = 3
    FAILURE_MODEL = 5
    FAILURE_DEADLINE = 7
    FAILURE_POISON = 8
    FAILURE_MEMORY = 9

cdef struct Claim:
    uint32_t slab
    uint32_t first_row
    uint32_t row_count
    uint32_t generation

cdef struct Batch:
    uint32_t slab
    uint32_t generation
    uint32_t row_count      # rows of the slab to look at
    uint32_t live_count     # rows to run
    uint32_t attempts       # executors that died with this slab
    uint64_t wait_until_ns  # RING_WAIT: when the queue delay ends
    uint32_t row_limit      # ring_take takes no more rows, but for those of one request; 0: all


cdef inline uint32_t slab_state(uint64_t word) noexcept nogil:
    return word & 15

cdef inline uint32_t slab_owner(uint64_t word) noexcept nogil:
    return (word >> 4) & 63

cdef inline uint32_t slab_last(uint64_t word) noexcept nogil:
    return (word >> 10) & 4095

cdef inline uint32_t slab_claimed(uint64_t word) noexcept nogil:
    return (word >> 22) & 4095

cdef inline uint32_t word_generation(uint64_t word) noexcept nogil:
    return <uint32_t>(word >> 34)

cdef inline uint64_t slab_word(uint32_t state, uint32_t owner, uint32_t last, uint32_t claimed,
                               uint32_t generation) noexcept nogil:
    return (
        state | (<uint64_t>owner << 4) | (<uint64_t>last << 10) | (<uint64_t>claimed << 22)
        | (<uint64_t>generation << 34)
    )

cdef inline uint32_t row_state(uint64_t word) noexcept nogil:
    return word & 15

cdef inline uint32_t row_owner(uint64_t word) noexcept nogil:
    return (word >> 4) & 63

cdef inline uint32_t row_attempts(uint64_t word) noexcept nogil:
    return (word >> 10) & 15

cdef inline uint32_t row_code(uint64_t word) noexcept nogil:
    return (word >> 14) & 255

cdef inline uint64_t row_word(uint32_t state, uint32_t owner, uint32_t attempts, uint32_t code,
                              uint32_t generation) noexcept nogil:
    return (
        state | (<uint64_t>owner << 4) | (<uint64_t>attempts << 10) | (<uint64_t>code << 14)
        | (<uint64_t>generation << 34)
    )

cdef inline uint64_t row_moved(uint64_t word, uint32_t state) noexcept nogil:
    return (word & ~<uint64_t>15) | state

cdef inline uint64_t* row_at(ArenaView* v, uint32_t slab, uint32_t row) noexcept nogil:
    return &v.rows[<uint64_t>slab * v.row_capacity + row]

cdef inline uint64_t row_index(ArenaView* v, uint32_t slab, uint32_t row) noexcept nogil:
    return <uint64_t>slab * v.row_capacity + row


# who opens a slab
cdef uint32_t new_generation(ArenaView* v) noexcept nogil
cdef void open_slab(ArenaView* v, uint32_t slab, uint32_t owner, uint32_t level, uint32_t row_count, uint32_t capacity,
                    uint64_t now_ns, uint32_t generation) noexcept nogil

# whoever moves a slab word
cdef void ring_stamp(ArenaView* v, uint32_t slab, uint64_t word) noexcept nogil

# worker
cdef int ring_claim(ArenaView* v, uint32_t owner, uint32_t level, uint32_t row_count, const RowShapes* shapes,
                    uint64_t now_ns, Claim* out) noexcept nogil
cdef bint ring_has_room(ArenaView* v) noexcept nogil
cdef void ring_publish(ArenaView* v, uint32_t owner, const Claim* claim, uint64_t now_ns,
                       uint64_t deadline_ns) noexcept nogil
cdef uint32_t ring_cancel(ArenaView* v, uint32_t owner, const Claim* claim) noexcept nogil
cdef bint ring_finished(ArenaView* v, uint32_t owner, const Claim* claim, uint64_t* failed_word) noexcept nogil
cdef void ring_release(ArenaView* v, uint32_t owner, const Claim* claim) noexcept nogil
cdef bint ring_recycle(ArenaView* v, uint32_t slab) noexcept nogil
cdef void ring_forget(ArenaView* v, uint32_t slab) noexcept nogil
