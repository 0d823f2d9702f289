"""The lock-free batch queue: rows of slabs in shared memory, moved by compare-and-swap (states: slab_ring.pxd).

It knows words, owners and generations; of tensors only whether their rows may share a slab (row_shapes.pxd); it does
not know sockets, clocks or models; what executors do with slabs is in slab_run. The arena's memory belongs to its
Segment. Workers, executor instances and the supervisor, which does ring_recovery for the dead, call at the same time
from different processes. Nothing waits, nothing allocates: a full ring is a return code. A claim is O(rows) when the
hinted slab has room, O(slabs) otherwise.
"""

from libc.stdint cimport UINT64_MAX, uint32_t, uint64_t
from posix.mman cimport madvise

from server._fast.atomics cimport (
    half_add, relaxed_load, relaxed_load_half, relaxed_store, relaxed_store_half, word_cas, word_load, word_store,
)
from server._fast.failpoints cimport (
    FP_CANCELLING, FP_CLAIMED, FP_COUNT, FP_OPENED, FP_OPENING, FP_PUBLISHED, FP_PUBLISHING, FP_RECYCLED,
    FP_RELEASED, FP_RELEASING, FP_STAMPING, failpoint, failpoint_arm,
)
from server._fast.layout cimport MODE_ROWS, MODE_SHAPED, ArenaView, SlabHeader
from server._fast.queue_levels cimport level_has_slab, level_is_full
from server._fast.row_shapes cimport RowShapes, shapes_match, shapes_store, shapes_waste


cdef extern from "<sys/mman.h>" nogil:
    int MADV_REMOVE

#: A slab that was used past this size gives its pages back before it is used again (single and shaped mode).
cdef uint64_t KEEP_BYTES = 1 << 20


cdef uint32_t new_generation(ArenaView* v) noexcept nogil:
    cdef uint32_t generation = 0
    while generation == 0:
        generation = (half_add(&v.lane.next_generation, 1) + 1) & GENERATION_MASK
    return generation


cdef void ring_stamp(ArenaView* v, uint32_t slab, uint64_t word) noexcept nogil:
    """Writes the last claim that `word` names into its row words, unless that is done or over.

    A row word that still has another generation is replaced only if the slab word has not moved since: whoever moves it
    stamps first, so the compare-and-swap of a helper that comes late fails.
    """
    cdef uint32_t end = slab_claimed(word)
    cdef uint32_t row = end - slab_last(word)
    cdef uint32_t generation = word_generation(word)
    cdef uint64_t filling = row_word(ROW_FILLING, slab_owner(word), 0, 0, generation)
    cdef uint64_t seen
    cdef uint64_t* at
    while row < end:
        at = row_at(v, slab, row)
        seen = word_load(at)
        if word_generation(seen) != generation:
            if word_load(&v.slabs[slab].word) != word:
                return
            word_cas(at, seen, filling)
            failpoint(FP_STAMPING)
        row += 1


cdef inline bint is_open(ArenaView* v, uint32_t slab) noexcept nogil:
    return slab_state(word_load(&v.slabs[slab].word)) == SLAB_OPEN


cdef int try_join(ArenaView* v, uint32_t slab, uint32_t owner, uint32_t level, uint32_t row_count, uint32_t capacity,
                  const RowShapes* shapes, bint is_longer, Claim* out) noexcept nogil:
    """is_longer: the slab is for longer rows, to which these may be padded."""
    cdef SlabHeader* header = &v.slabs[slab]
    cdef uint64_t word, joined
    while True:
        word = word_load(&header.word)
        if is_longer:
            capacity = relaxed_load_half(&header.capacity)
        if slab_state(word) != SLAB_OPEN or slab_claimed(word) + row_count > capacity:
            return RING_FULL
        # A level and shapes that were read while the slab became another's are worth nothing: the word has moved, the
        # swap fails.
        if v.level_count > 1 and relaxed_load_half(&header.level) != level:
            return RING_FULL
        if is_longer:
            if shapes_waste(v, slab, shapes) == UINT64_MAX:
                return RING_FULL
        elif shapes != NULL and not shapes_match(v, slab, shapes):
            return RING_FULL
        ring_stamp(v, slab, word)
        joined = slab_word(SLAB_OPEN, owner, row_count, slab_claimed(word) + row_count, word_generation(word))
        if word_cas(&header.word, word, joined):
            break
    failpoint(FP_CLAIMED)
    ring_stamp(v, slab, joined)
    out.slab = slab
    out.first_row = slab_claimed(word)
    out.row_count = row_count
    out.generation = word_generation(word)
    return 0


cdef void open_slab(ArenaView* v, uint32_t slab, uint32_t owner, uint32_t level, uint32_t row_count, uint32_t capacity,
                    uint64_t now_ns, uint32_t generation) noexcept nogil:
    """The last step of opening: whoever sees the word sees the rest."""
    cdef SlabHeader* header = &v.slabs[slab]
    cdef uint64_t opened = slab_word(SLAB_OPEN, owner, row_count, row_count, generation)
    relaxed_store_half(&header.capacity, capacity)
    relaxed_store(&header.opened_ns, now_ns)
    relaxed_store_half(&header.undated, 0)
    relaxed_store(&header.deadline_ns, 0)
    relaxed_store_half(&header.attempts, 0)
    relaxed_store_half(&header.passes, 0)
    relaxed_store_half(&header.level, level)
    relaxed_store(&header.stale_ns, 0)
    word_store(&header.word, opened)
    failpoint(FP_OPENED)
    ring_stamp(v, slab, opened)


cdef inline int try_open(ArenaView* v, uint32_t slab, uint32_t owner, uint32_t level, uint32_t row_count,
                         uint32_t capacity, const RowShapes* shapes, uint64_t now_ns, Claim* out) noexcept nogil:
    cdef SlabHeader* header = &v.slabs[slab]
    cdef uint64_t word = word_load(&header.word)
    cdef uint64_t opening
    cdef uint32_t generation
    if slab_state(word) != SLAB_FREE:
        return RING_FULL
    generation = new_generation(v)
    opening = slab_word(SLAB_OPENING, owner, 0, 0, generation)
    if not word_cas(&header.word, word, opening):
        return RING_FULL
    failpoint(FP_OPENING)
    if v.mode != MODE_ROWS:
        ring_forget(v, slab)
    if shapes != NULL:
        shapes_store(v, slab, shapes)
    open_slab(v, slab, owner, level, row_count, capacity, now_ns, generation)
    out.slab = slab
    out.first_row = 0
    out.row_count = row_count
    out.generation = generation
    return 0


cdef int join_longer(ArenaView* v, uint32_t owner, uint32_t level, uint32_t row_count, const RowShapes* shapes,
                     Claim* out) noexcept nogil:
    """Joins the open slab in which these rows waste least: 0, or RING_FULL if a slab of their own is better."""
    cdef uint32_t slab, best = 0
    cdef uint64_t word, waste, least = UINT64_MAX
    for slab in range(v.slab_count):
        word = word_load(&v.slabs[slab].word)
        if (
            slab_state(word) == SLAB_OPEN
            and slab_claimed(word) + row_count <= relaxed_load_half(&v.slabs[slab].capacity)
            and relaxed_load_half(&v.slabs[slab].level) == level
        ):
            waste = shapes_waste(v, slab, shapes)
            if waste < least:
                least = waste
                best = slab
    if least == UINT64_MAX:
        return RING_FULL
    return try_join(v, best, owner, level, row_count, 0, shapes, True, out)


cdef int ring_claim(ArenaView* v, uint32_t owner, uint32_t level, uint32_t row_count, const RowShapes* shapes,
                    uint64_t now_ns, Claim* out) noexcept nogil:
    """Claims `row_count` neighbouring rows: 0, RING_FULL or RING_TOO_LARGE. The rows are FILLING until published.

    shapes: what the rows look like in shaped mode, else NULL; only rows of equal shapes get into one slab, but for
    those that may be padded to the shapes of another. Free slabs are opened lowest first, so a lightly loaded lane
    keeps to few slabs and their pages stay warm.
    """
    cdef uint32_t slab, capacity = v.row_capacity if shapes == NULL else shapes.capacity
    if row_count == 0 or row_count > capacity:
        return RING_TOO_LARGE
    slab = relaxed_load_half(&v.lane.open_hint)
    if is_open(v, slab) and try_join(v, slab, owner, level, row_count, capacity, shapes, False, out) == 0:
        return 0
    for slab in range(v.slab_count):
        if is_open(v, slab) and try_join(v, slab, owner, level, row_count, capacity, shapes, False, out) == 0:
            relaxed_store_half(&v.lane.open_hint, slab)
            return 0
    if shapes != NULL and shapes.spare_elements and join_longer(v, owner, level, row_count, shapes, out) == 0:
        return 0
    if v.level_count > 1 and not level_has_slab(v, level):
        return RING_FULL
    for slab in range(v.slab_count):
        if try_open(v, slab, owner, level, row_count, capacity, shapes, now_ns, out) == 0:
            relaxed_store_half(&v.lane.open_hint, slab)
            return 0
    return RING_FULL


cdef bint ring_has_room(ArenaView* v) noexcept nogil:
    """Whether a claim of one row would probably succeed now, at some level. O(1) unless the lane is nearly full or the
    rows that may wait are bounded."""
    cdef uint32_t slab = relaxed_load_half(&v.lane.open_hint), capacity = v.row_capacity
    cdef uint64_t word = word_load(&v.slabs[slab].word)
    if v.level_count == 1 and level_is_full(v, 0):
        return False
    if slab_state(word) == SLAB_OPEN and v.mode != MODE_SHAPED and slab_claimed(word) < capacity:
        return True
    for slab in range(v.slab_count):
        word = word_load(&v.slabs[slab].word)
        if v.mode == MODE_SHAPED:
            capacity = relaxed_load_half(&v.slabs[slab].capacity)
        if slab_state(word) == SLAB_FREE or (slab_state(word) == SLAB_OPEN and slab_claimed(word) < capacity):
            return True
    return False


cdef inline void note_deadline(SlabHeader* header, uint64_t deadline_ns) noexcept nogil:
    """The slab's earliest deadline, before its rows are ready."""
    cdef uint64_t earliest
    if deadline_ns == 0:
        if not relaxed_load_half(&header.undated):
            relaxed_store_half(&header.undated, 1)
        return
    while True:
        earliest = relaxed_load(&header.deadline_ns)
        if 0 < earliest <= deadline_ns or word_cas(&header.deadline_ns, earliest, deadline_ns):
            return


cdef void ring_publish(ArenaView* v, uint32_t owner, const Claim* claim, uint64_t now_ns,
                       uint64_t deadline_ns) noexcept nogil:
    """Says that the claimed rows are filled. The caller wakes the executor afterwards, once for many claims."""
    cdef uint64_t filling = row_word(ROW_FILLING, owner, 0, 0, claim.generation)
    cdef uint32_t row = claim.first_row
    cdef uint64_t at
    note_deadline(&v.slabs[claim.slab], deadline_ns)
    while row < claim.first_row + claim.row_count:
        at = row_index(v, claim.slab, row)
        relaxed_store(&v.meta[at].published_ns, now_ns)
        relaxed_store(&v.meta[at].deadline_ns, deadline_ns)
        relaxed_store_half(&v.meta[at].claim_first, claim.first_row)
        relaxed_store_half(&v.meta[at].claim_rows, claim.row_count)
        failpoint(FP_PUBLISHING)
        word_cas(&v.rows[at], filling, row_moved(filling, ROW_READY))
        row += 1
    failpoint(FP_PUBLISHED)


cdef uint32_t ring_cancel(ArenaView* v, uint32_t owner, const Claim* claim) noexcept nogil:
    """Gives claimed rows up in whatever state they are; the owner may forget them. How many had not begun to run."""
    cdef uint32_t row = claim.first_row
    cdef uint32_t spared = 0
    cdef uint64_t word
    cdef uint64_t* at
    cdef uint32_t state, target
    while row < claim.first_row + claim.row_count:
        at = row_at(v, claim.slab, row)
        while True:
            word = word_load(at)
            state = row_state(word)
            if word_generation(word) != claim.generation or row_owner(word) != owner:
                break
            if state == ROW_FILLING or state == ROW_READY:
                target = ROW_CANCELLED
            elif state == ROW_RUNNING:
                target = ROW_ORPHAN
            elif state == ROW_DONE or state == ROW_FAILED:
                target = ROW_FREE
            else:
                break
            if word_cas(at, word, row_moved(word, target)):
                spared += target == ROW_CANCELLED
                break
        failpoint(FP_CANCELLING)
        row += 1
    ring_recycle(v, claim.slab)
    return spared


cdef bint ring_finished(ArenaView* v, uint32_t owner, const Claim* claim, uint64_t* failed_word) noexcept nogil:
    """Whether every row of the claim is done; `failed_word` gets the word of the first that failed, or 0."""
    cdef uint32_t row = claim.first_row
    cdef uint64_t word
    failed_word[0] = 0
    while row < claim.first_row + claim.row_count:
        word = word_load(row_at(v, claim.slab, row))
        if row_state(word) == ROW_FAILED:
            if failed_word[0] == 0:
                failed_word[0] = word
        elif row_state(word) != ROW_DONE:
            return False
        row += 1
    return True


cdef void ring_release(ArenaView* v, uint32_t owner, const Claim* claim) noexcept nogil:
    """Frees finished rows. The caller then tries ring_recycle, once for many claims of one slab."""
    cdef uint32_t row = claim.first_row
    cdef uint64_t word
    cdef uint64_t* at
    while row < claim.first_row + claim.row_count:
        at = row_at(v, claim.slab, row)
        word = word_load(at)
        failpoint(FP_RELEASING)
        if word_generation(word) == claim.generation and row_owner(word) == owner and (
            row_state(word) == ROW_DONE or row_state(word) == ROW_FAILED
        ):
            word_cas(at, word, row_moved(word, ROW_FREE))
        row += 1
    failpoint(FP_RELEASED)


cdef bint ring_recycle(ArenaView* v, uint32_t slab) noexcept nogil:
    """Makes a done slab free when its last row is: whoever finds it so does it, the generation keeps it to one."""
    cdef uint64_t word = word_load(&v.slabs[slab].word)
    cdef uint64_t at
    cdef uint32_t row
    if slab_state(word) != SLAB_DONE:
        return False
    for row in range(slab_claimed(word)):
        at = word_load(row_at(v, slab, row))
        if row_state(at) != ROW_FREE or word_generation(at) != word_generation(word):
            return False
    failpoint(FP_RECYCLED)
    return word_cas(&v.slabs[slab].word, word, slab_word(SLAB_FREE, 0, 0, 0, word_generation(word)))


cdef void ring_forget(ArenaView* v, uint32_t slab) noexcept nogil:
    """Gives the pages of an unusually large request back; small ones stay warm. Only the opener may call: a slab that
    is about to be recycled belongs to nobody, so a late caller would wipe the next request."""
    cdef uint32_t tensor, tensor_count = v.header.input_count if v.mode == MODE_SHAPED else v.tensor_count
    cdef uint64_t used = 0
    for tensor in range(tensor_count):
        used += v.shapes[<uint64_t>slab * v.shape_stride + tensor].bytes
    if v.mode == MODE_SHAPED:
        used = used * relaxed_load_half(&v.slabs[slab].run_rows) + relaxed_load(&v.slabs[slab].output_used)
    if used > KEEP_BYTES:
        madvise(v.data + slab * v.data_stride, v.data_stride, MADV_REMOVE)


def arm_failpoint(int point, int hits=1):
    """Debug builds: the process dies by SIGKILL at the `hits`-th passing of `point`. False where it is compiled out."""
    return bool(failpoint_arm(point, hits))


FAILPOINT_COUNT = FP_COUNT
