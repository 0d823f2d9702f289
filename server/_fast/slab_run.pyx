"""The executor's half of the lock-free batch queue: which slab runs, its rows taken, finished and completed.

States and words are slab_ring.pxd's. It knows words, owners, generations, levels' ranks and deadlines; it does not know
sockets, clocks, models or what a tensor is. The arena's memory belongs to its Segment. Several instances, and workers
and the supervisor through slab_ring and ring_recovery, call at the same time. Nothing waits, nothing allocates.
O(slabs) to choose, O(rows of the slab) for the rest.
"""

from libc.stdint cimport uint32_t, uint64_t

from server._fast.atomics cimport (
    relaxed_load, relaxed_load_half, relaxed_store, relaxed_store_half, word_cas, word_load,
)
from server._fast.cost_table cimport cost_is_known, cost_upper
from server._fast.failpoints cimport (
    FP_DONE, FP_FINISHED, FP_FINISHING, FP_RUNNING, FP_SEALED, FP_TAKING, failpoint, failpoint_arm,
)
from server._fast.layout cimport MODE_SHAPED, OWNER_NONE, ArenaView, RowMeta, SlabHeader
from server._fast.queue_levels cimport slab_rank
from server._fast.slab_ring cimport (
    ALONE_ATTEMPTS, FAILURE_DEADLINE, FAILURE_POISON, GENERATION_MASK, POISON_ATTEMPTS, RING_EMPTY,
    RING_UNPUBLISHED, RING_WAIT,
    ROW_ABANDONED, ROW_CANCELLED, ROW_DONE, ROW_FAILED, ROW_FILLING, ROW_FREE, ROW_ORPHAN, ROW_READY, ROW_RUNNING,
    SLAB_DONE, SLAB_OPEN, SLAB_RUNNING, SLAB_SEALED, Batch, ring_recycle, ring_stamp, row_at, row_attempts,
    row_index, row_moved, row_owner, row_state, row_word, slab_claimed, slab_owner, slab_state, slab_word,
    word_generation,
)


cdef inline bint is_older(uint32_t a, uint32_t b) noexcept nogil:
    return ((b - a) & GENERATION_MASK) - 1 < GENERATION_MASK // 2


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


cdef inline bint can_wait(SlabHeader* header, uint64_t now_ns) noexcept nogil:
    """Whether newer slabs may go first: each row has a deadline, so none waits for ever, and none has passed."""
    return not relaxed_load_half(&header.undated) and now_ns < relaxed_load(&header.deadline_ns)


cdef int ring_due(ArenaView* v, uint64_t now_ns, uint32_t* slab_out, uint64_t* word_out,
                  uint64_t* wait_until_ns) noexcept nogil:
    """The slab that is due first: 0 and its word, RING_EMPTY, or RING_WAIT and the time when one will be.

    A slab is due at once (natural batching), or with a queue delay when it is that old, has the preferred rows, or has
    to run for the lane's latency target to hold. A slab that was left behind, by a dead executor or with rows that
    could not run yet, is due as soon as it has a row to run. Of several the lowest rank goes first (queue_levels.pxd),
    and in it the oldest; while the queue stands the newest, unless a row of the oldest has no deadline or has passed
    it. The reference for this rule is server.batching.plan.decide.
    """
    cdef uint64_t word, due_ns, best_word = 0, newest_word = 0, delay_ns = v.lane.max_queue_delay_ns
    cdef uint32_t slab, state, best = v.slab_count, newest = v.slab_count, full = v.lane.preferred_rows
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
            best = newest = v.slab_count
        if best == v.slab_count or is_older(word_generation(word), word_generation(best_word)):
            best = slab
            best_word = word
        if newest == v.slab_count or is_older(word_generation(newest_word), word_generation(word)):
            newest = slab
            newest_word = word
    if best == v.slab_count:
        return RING_WAIT if wait_until_ns[0] else RING_EMPTY
    if relaxed_load_half(&v.lane.newest_first) and newest != best and can_wait(&v.slabs[best], now_ns):
        best = newest
        best_word = newest_word
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
