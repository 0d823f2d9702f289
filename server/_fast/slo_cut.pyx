"""The cut of a batch that would answer its oldest row too late for the lane's latency target.

It knows waits, rows and the cost table; it does not run or move anything: ring_take takes no more rows than it says,
and the rest of the slab is left behind for the next pass. The arena owns the memory; the instance that sealed the slab
calls. O(rows) where the target is in danger, O(1) otherwise; nothing is allocated.

The reference is server.batching.slo_policy.rows_to_run, which has the rule in words.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from server._fast.atomics cimport relaxed_load, relaxed_load_half, word_load
from server._fast.cost_table cimport cost_is_known, cost_largest_within, cost_of, cost_upper
from server._fast.layout cimport Arena, ArenaView
from server._fast.slab_ring cimport ROW_READY, Batch, row_at, row_index, row_state

#: The price of time on a machine that is never idle.
cdef uint64_t MAX_PRICE = 16


cdef inline bint is_ready(ArenaView* v, uint32_t slab, uint32_t row) noexcept nogil:
    return row_state(word_load(row_at(v, slab, row))) == ROW_READY


cdef inline uint64_t published_ns(ArenaView* v, uint32_t slab, uint32_t row) noexcept nogil:
    return relaxed_load(&v.meta[row_index(v, slab, row)].published_ns)


cdef uint32_t whole_requests(ArenaView* v, const Batch* batch, uint32_t fitting) noexcept nogil:
    """The rows of as many requests from the front as have together at most `fitting`."""
    cdef uint32_t row = 0, end, count, first = 0
    while row < batch.row_count:
        if not is_ready(v, batch.slab, row):
            row += 1
            continue
        # Rows that were claimed together with this one, as far as they are ready.
        end = row + 1
        count = 1
        while end < batch.row_count and (
            relaxed_load_half(&v.meta[row_index(v, batch.slab, end)].claim_first)
            == relaxed_load_half(&v.meta[row_index(v, batch.slab, row)].claim_first)
        ) and is_ready(v, batch.slab, end):
            end += 1
            count += 1
        if first + count > fitting:
            return first
        first += count
        row = end
    return first


cdef uint32_t slo_rows(ArenaView* v, const Batch* batch, uint32_t busy, uint64_t now_ns) noexcept nogil:
    cdef uint64_t slo_ns = v.cost.slo_ns, oldest_ns = now_ns, at_ns, whole_ns, rest_ns, extra_ns, price, per
    cdef uint32_t row, rows = 0, first, place = 0
    cdef int64_t gain = 0
    if slo_ns == 0 or not cost_is_known(v):
        return 0
    for row in range(batch.row_count):
        if is_ready(v, batch.slab, row):
            rows += 1
            at_ns = published_ns(v, batch.slab, row)
            if at_ns < oldest_ns:
                oldest_ns = at_ns
    whole_ns = cost_upper(v, rows)
    if rows < 2 or now_ns + whole_ns <= oldest_ns + slo_ns or now_ns >= oldest_ns + slo_ns:
        return 0
    first = whole_requests(v, batch, cost_largest_within(v, oldest_ns + slo_ns - now_ns))
    if first == 0 or first >= rows:
        return 0
    rest_ns = cost_upper(v, first) + cost_upper(v, rows - first)
    for row in range(batch.row_count):
        if is_ready(v, batch.slab, row):
            at_ns = published_ns(v, batch.slab, row)
            gain += place < first or now_ns + rest_ns <= at_ns + slo_ns
            gain -= now_ns + whole_ns <= at_ns + slo_ns
            place += 1
    if gain <= 0:
        return 0
    whole_ns = cost_of(v, rows)
    rest_ns = cost_of(v, first) + cost_of(v, rows - first)
    extra_ns = rest_ns - whole_ns if rest_ns > whole_ns else 0
    price = busy
    per = BUSY_ONE - busy if busy < BUSY_ONE else 0
    if price > MAX_PRICE * per:
        price = MAX_PRICE
        per = 1
    return first if gain * whole_ns * per > price * extra_ns * rows else 0


def rows_of(Arena arena not None, dict sealed, uint32_t busy, uint64_t now_ns):
    cdef Batch batch = sealed
    return slo_rows(&arena.view, &batch, busy, now_ns)


def busy_of(list runs, uint64_t now_ns):
    cdef BusyMeter meter
    memset(&meter, 0, sizeof(meter))
    for start_ns, end_ns in runs:
        busy_add(&meter, start_ns, end_ns)
    return busy_share(&meter, now_ns)
