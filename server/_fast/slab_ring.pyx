"""The lock-free batch queue: rows of slabs in shared memory, moved by compare-and-swap (states: slab_ring.pxd).

It knows words, owners and generations; of tensors only whether their rows may share a slab (row_shapes.pxd); it does
not know sockets, clocks or models. The arena's memory belongs to its Segment. Workers, executor instances and the
supervisor, which does ring_recovery for the dead, call at the same time from different processes. Nothing waits,
nothing allocates: a full ring is a return code. A claim is O(rows) when the hinted slab has room, O(slabs) otherwise.
"""

from libc.stdint cimport UINT64_MAX, uint32_t, uint64_t
from posix.mman cimport madvise

from server._fast.atomics cimport (
    half_add,
    relaxed_load,
    relaxed_load_half,
    relaxed_store,
    relaxed_store_half,
    word_cas,
    word_load,
    word_store,
)
from server._fast.cost_table cimport cost_is_known, cost_upper
from server._fast.failpoints cimport (
    FP_CANCELLING, FP_CLAIMED, FP_COUNT, FP_DONE, FP_FINISHED, FP_FINISHING, FP_OPENED, FP_OPENING, FP_PUBLISHED,
    FP_PUBLISHING, FP_RECYCLED, FP_RELEASED, FP_RELEASING, FP_RUNNING, FP_SEALED, FP_STAMPING, FP_TAKING, failpoint,
    failpoint_arm,
)
from server._fast.layout cimport MODE_ROWS, MODE_SHAPED, OWNER_NONE, ArenaView, RowMeta, SlabHeader
from server._fast.queue_levels cimport level_has_slab, level_is_full, slab_rank
from server._fast.row_shapes cimport RowShapes, shapes_match, shapes_store, shapes_waste


cdef extern from "<sys/mman.h>" nogil:
    int MADV_REMOVE

cdef uint32_t GENERATION_MASK = (1 << 30) - 1
#: A slab that was used past this size gives its pages back before it is used again (single and shaped mode).
cdef uint64_t KEEP_BYTES = 1 << 20


cdef inline bint is_older(uint32_t a, uint32_t b) noexcept nogil:
    return ((b - a) & GENERATION_MASK) - 1 < GENERATION_MASK // 2


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


cdef void ring_publish(ArenaView* v, uint32_t owner, const Claim* claim, uint64_t now_ns,
                       uint64_t deadline_ns) noexcept nogil:
    """Says that the claimed rows are filled. The caller wakes the executor afterwards, once for many claims."""
    cdef uint64_t filling = row_word(ROW_FILLING, owner, 0, 0, claim.generation)
    cdef uint32_t row = claim.first_row
    cdef uint64_t at
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


# ---- executor

cdef bint is_readable(ArenaView* v, uint32_t slab, uint32_t row) noexcept nogil:
    """Whether all rows that were claimed together with this finished one are finished or gone."""
    cdef uint64_t at = row_index(v, slab, row)
    cdef uint32_t other = relaxed_load_half(&v.meta[at].claim_first), state
    cdef uint32_t end = other + relaxed_load_half(&v.meta[at].claim_rows)
    while other < end:
        state = row_state(word_load(row_at(v, slab, other)))
        if state == ROW_FILLING or state == ROW_READY or state == ROW_RUNNING:
            return False
        other += 1
    return True


cdef bint is_held_up(ArenaView* v, uint32_t slab, uint32_t row_count) noexcept nogil:
    """Whether a slab that was left behind has rows being filled and none to run, or rows that wait for the room of
    outputs that workers have not read yet."""
    cdef uint32_t row, state
    cdef bint is_filling = False, is_ready = False, is_crowded = relaxed_load_half(&v.slabs[slab].crowded) != 0
    for row in range(row_count):
        state = row_state(word_load(row_at(v, slab, row)))
        if state == ROW_READY:
            if not is_crowded:
                return False
            is_ready = True
        elif state == ROW_DONE and is_crowded and is_readable(v, slab, row):
            return True
        is_filling |= state == ROW_FILLING
    return is_filling and not is_ready


cdef inline uint64_t wait_for(ArenaView* v, uint32_t row_count, uint64_t delay_ns) noexcept nogil:
    """The queue delay of a slab; it ends in time for the lane's latency target."""
    cdef uint64_t cost_ns
    if v.cost.slo_ns == 0 or not cost_is_known(v):
        return delay_ns
    cost_ns = cost_upper(v, row_count)
    return min(delay_ns, v.cost.slo_ns - cost_ns) if cost_ns < v.cost.slo_ns else 0


cdef int ring_due(ArenaView* v, uint64_t now_ns, uint32_t* slab_out, uint64_t* word_out,
                  uint64_t* wait_until_ns) noexcept nogil:
    """The oldest slab that is due: 0 and its word, RING_EMPTY, or RING_WAIT and the time when one will be.

    A slab is due at once (natural batching), or with a queue delay when it is that old, has the preferred rows, or has
    to run for the lane's latency target to hold. A slab that was left behind, by a dead executor or with rows that
    could not run yet, is due as soon as it has a row to run. Of several the lowest rank goes first (queue_levels.pxd),
    and in it the oldest. The reference for this rule is server.batching.plan.decide.
    """
    cdef uint64_t word, due_ns, best_word = 0, delay_ns = v.lane.max_queue_delay_ns
    cdef uint32_t slab, state, best = v.slab_count, full = v.lane.preferred_rows
    cdef uint32_t rank, best_rank = <uint32_t>-1
    if full == 0 or full > v.row_capacity:
        full = v.row_capacity
    wait_until_ns[0] = 0
    for slab in range(v.slab_count):
        word = word_load(&v.slabs[slab].word)
        state = slab_state(word)
        if state == SLAB_SEALED:
            if slab_owner(word) != OWNER_NONE or is_held_up(v, slab, slab_claimed(word)):
                continue
        elif state == SLAB_OPEN:
            if delay_ns and slab_claimed(word) < min(full, relaxed_load_half(&v.slabs[slab].capacity)):
                due_ns = relaxed_load(&v.slabs[slab].opened_ns) + wait_for(v, slab_claimed(word), delay_ns)
                if now_ns < due_ns:
                    if wait_until_ns[0] == 0 or due_ns < wait_until_ns[0]:
                        wait_until_ns[0] = due_ns
                    continue
        else:
            continue
        rank = slab_rank(v, slab, now_ns)
        if rank > best_rank:
            continue
        if rank < best_rank:
            best_rank = rank
            best = v.slab_count
        if best == v.slab_count or is_older(word_generation(word), word_generation(best_word)):
            best = slab
            best_word = word
    if best == v.slab_count:
        return RING_WAIT if wait_until_ns[0] else RING_EMPTY
    slab_out[0] = best
    word_out[0] = best_word
    return 0


cdef int ring_seal(ArenaView* v, uint32_t instance, uint64_t now_ns, Batch* out) noexcept nogil:
    """Seals the slab that is due for this instance: 0, RING_EMPTY, or RING_WAIT with batch.wait_until_ns."""
    cdef uint64_t word = 0
    cdef uint32_t slab = 0
    cdef int code
    while True:
        code = ring_due(v, now_ns, &slab, &word, &out.wait_until_ns)
        if code < 0:
            return code
        if slab_state(word) == SLAB_OPEN:
            ring_stamp(v, slab, word)
        if word_cas(&v.slabs[slab].word, word,
                    slab_word(SLAB_SEALED, instance, 0, slab_claimed(word), word_generation(word))):
            break
    failpoint(FP_SEALED)
    out.slab = slab
    out.generation = word_generation(word)
    out.row_count = slab_claimed(word)
    out.live_count = 0
    out.attempts = relaxed_load_half(&v.slabs[slab].attempts)
    out.wait_until_ns = 0
    out.row_limit = 0
    return 0


cdef void clear_outputs(ArenaView* v, const Batch* batch) noexcept nogil:
    """Gives the room for outputs back. What workers could read they have read: finished rows that are still here wait
    for others of their claim, and run again with those.
    """
    cdef uint32_t row
    for row in range(batch.row_count):
        take_back(v, batch.slab, row, ROW_DONE)
    relaxed_store(&v.slabs[batch.slab].output_used, 0)
    relaxed_store_half(&v.slabs[batch.slab].crowded, 0)


cdef int ring_take(ArenaView* v, uint32_t instance, uint64_t now_ns, bint partial, Batch* batch) noexcept nogil:
    """Makes a sealed slab's rows run: 0, or RING_UNPUBLISHED while a row is still being filled (then try again).

    partial: do not wait for rows that are being filled by a worker that does not get on; they run in a later pass.
    batch.row_limit: so do the requests from the one on with which there would be more rows than that.

    Rows past their deadline fail here, before they run. A slab that an executor died with is not taken as a whole:
    live_count counts its rows, and ring_take_alone takes them one by one.
    """
    cdef uint32_t row, state, claim_end = 0
    cdef uint64_t word, deadline_ns
    cdef uint64_t* at
    cdef RowMeta* meta
    cdef bint is_full = False
    cdef SlabHeader* header = &v.slabs[batch.slab]
    cdef bint alone = batch.attempts >= ALONE_ATTEMPTS
    for row in range(batch.row_count):
        if not partial and row_state(word_load(row_at(v, batch.slab, row))) == ROW_FILLING:
            return RING_UNPUBLISHED
    if v.mode == MODE_SHAPED and relaxed_load_half(&header.crowded):
        clear_outputs(v, batch)
    relaxed_store(&header.run_start_ns, now_ns)
    relaxed_store_half(&header.run_rows, batch.row_count)
    word = slab_word(SLAB_SEALED, instance, 0, batch.row_count, batch.generation)
    word_cas(&header.word, word, slab_word(SLAB_RUNNING, instance, 0, batch.row_count, batch.generation))
    failpoint(FP_RUNNING)
    batch.live_count = 0
    for row in range(batch.row_count):
        at = row_at(v, batch.slab, row)
        while True:
            word = word_load(at)
            state = row_state(word)
            if state != ROW_READY:
                break
            meta = &v.meta[row_index(v, batch.slab, row)]
            deadline_ns = relaxed_load(&meta.deadline_ns)
            if deadline_ns and deadline_ns <= now_ns:
                if word_cas(at, word, row_word(ROW_FAILED, row_owner(word), row_attempts(word), FAILURE_DEADLINE,
                                               batch.generation)):
                    break
            elif alone:
                batch.live_count += 1
                break
            elif batch.row_limit and row >= claim_end:
                claim_end = relaxed_load_half(&meta.claim_first) + relaxed_load_half(&meta.claim_rows)
                is_full |= batch.live_count > 0 and batch.live_count + claim_end - row > batch.row_limit
                if is_full:
                    break
            elif is_full:
                break
            elif word_cas(at, word, row_moved(word, ROW_RUNNING)):
                batch.live_count += 1
                break
        failpoint(FP_TAKING)
    return 0


cdef int ring_take_alone(ArenaView* v, const Batch* batch, uint32_t row) noexcept nogil:
    """Takes one row of a slab that an executor died with: 1 run it, 0 it is gone, -1 it was poison and has failed."""
    cdef uint64_t* at = row_at(v, batch.slab, row)
    cdef uint64_t word
    while True:
        word = word_load(at)
        if row_state(word) != ROW_READY:
            return 0
        if row_attempts(word) >= POISON_ATTEMPTS:
            if word_cas(at, word, row_word(ROW_FAILED, row_owner(word), row_attempts(word), FAILURE_POISON,
                                           batch.generation)):
                return -1
        elif word_cas(at, word, row_word(ROW_RUNNING, row_owner(word), row_attempts(word) + 1, 0, batch.generation)):
            return 1


cdef void ring_put_back(ArenaView* v, uint32_t slab, uint32_t row) noexcept nogil:
    """Makes a running row ready again, for a later pass, as if it had not been taken."""
    take_back(v, slab, row, ROW_RUNNING)


cdef void take_back(ArenaView* v, uint32_t slab, uint32_t row, uint32_t state) noexcept nogil:
    cdef uint64_t* at = row_at(v, slab, row)
    cdef uint64_t word = word_load(at)
    cdef uint32_t attempts
    while row_state(word) == state:
        attempts = row_attempts(word)
        if word_cas(at, word, row_word(ROW_READY, row_owner(word), attempts - (attempts > 0), 0,
                                       word_generation(word))):
            return
        word = word_load(at)


cdef void ring_finish_row(ArenaView* v, uint32_t slab, uint32_t row, uint32_t code) noexcept nogil:
    """Ends one running row: DONE for code 0, else FAILED; a row without an owner is freed."""
    cdef uint64_t* at = row_at(v, slab, row)
    cdef uint64_t word, target
    while True:
        word = word_load(at)
        if row_state(word) == ROW_RUNNING:
            target = row_word(ROW_FAILED if code else ROW_DONE, row_owner(word), row_attempts(word), code,
                              word_generation(word))
        elif row_state(word) in (ROW_ORPHAN, ROW_CANCELLED, ROW_ABANDONED):
            target = row_moved(word, ROW_FREE)
        else:
            return
        if word_cas(at, word, target):
            return


cdef uint64_t ring_complete(ArenaView* v, uint32_t instance, const Batch* batch) noexcept nogil:
    """Ends a running slab: rows still running are done, rows without an owner free. The owners to wake, as a bit set.

    A slab with rows that could not be taken, since they were being filled, or that were put back, is left for a later
    pass.
    """
    cdef uint64_t owners = 0, ended
    cdef bint is_over = True
    cdef uint64_t word
    cdef uint32_t row
    failpoint(FP_FINISHING)
    for row in range(batch.row_count):
        ring_finish_row(v, batch.slab, row, 0)
        word = word_load(row_at(v, batch.slab, row))
        if row_state(word) == ROW_DONE or row_state(word) == ROW_FAILED:
            owners |= <uint64_t>1 << row_owner(word)
        elif row_state(word) != ROW_FREE:
            # Being filled or ready; or given up since finish_row saw it so, and then the later pass frees it.
            is_over = False
        failpoint(FP_FINISHED)
    if is_over:
        ended = slab_word(SLAB_DONE, 0, 0, batch.row_count, batch.generation)
    else:
        # Before the word: whoever sees finished rows in a slab that is not done has to know why.
        relaxed_store_half(&v.slabs[batch.slab].passes, relaxed_load_half(&v.slabs[batch.slab].passes) + 1)
        ended = slab_word(SLAB_SEALED, OWNER_NONE, 0, batch.row_count, batch.generation)
    word = slab_word(SLAB_RUNNING, instance, 0, batch.row_count, batch.generation)
    word_cas(&v.slabs[batch.slab].word, word, ended)
    failpoint(FP_DONE)
    ring_recycle(v, batch.slab)
    return owners


def arm_failpoint(int point, int hits=1):
    """Debug builds: the process dies by SIGKILL at the `hits`-th passing of `point`. False where it is compiled out."""
    return bool(failpoint_arm(point, hits))


FAILPOINT_COUNT = FP_COUNT
