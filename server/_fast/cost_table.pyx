"""How a lane's cost table learns T(b): from the warm-up's runs, then from every run of the model.

It knows rows and nanoseconds; it does not know models, clocks (the caller has the time) or what the estimates are used
for. The arena owns the memory. The executor calls, its instances at the same time: stores are relaxed, a lost update
is a sample that was not there. Anyone reads (cost_table.pxd). O(COST_CELLS) a call, nothing allocated.

Each cell is an average that forgets: the last 16 runs or so count. A run of a size between two cells is put to the
nearer one, scaled by the line. A run that took far longer or shorter than expected, because the process was stopped,
say, counts as four times or a quarter of what was expected, so that it takes several in a row to believe it. What was
learnt in overload must not outlive it: a cell that no run has touched for a second goes back to its value of the
warm-up, times what runs take now compared with the warm-up. Sizes that never ran are guessed from those that did,
larger ones as if each row cost the same: pessimistic until a run of nearly that size shows better.

The reference is server.batching.cost.CostTable, to the nanosecond.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from server._fast.atomics cimport (
    relaxed_load,
    relaxed_load_half,
    relaxed_store,
    relaxed_store_half,
    shared_add,
)
from server._fast.layout cimport COST_DRIFT_ONE, Arena, ArenaView, CostCell, CostTable

#: A run of eighteen minutes counts as one of this.
cdef uint64_t MAX_NS = 1 << 40
#: How many runs an average remembers.
cdef uint32_t MEMORY_RUNS = 16
#: A cell that has learnt from fewer believes whatever it is told.
cdef uint32_t TRUSTED_RUNS = 4
cdef uint64_t STALE_NS = 1000000000
cdef uint64_t DRIFT_MAX = 1 << 16


cdef inline uint64_t clamped(uint64_t value, uint64_t low, uint64_t high) noexcept nogil:
    return low if value < low else (high if value > high else value)


cdef int cost_learn(ArenaView* v, uint32_t rows, uint64_t ns, uint64_t deviation_ns, uint32_t count,
                    uint64_t now_ns) noexcept nogil:
    """What the warm-up measured, in `count` runs, for a size that has a cell: 0, or -1 for a size that has none."""
    cdef CostTable* t = v.cost
    cdef CostCell* cell = &t.cells[cost_cell_below(t, rows)]
    if cell.rows != rows or count == 0:
        return -1
    ns = clamped(ns, 1, MAX_NS)
    relaxed_store(&cell.mean_ns, ns)
    relaxed_store(&cell.base_ns, ns)
    relaxed_store(&cell.deviation_ns, min(deviation_ns, MAX_NS))
    relaxed_store(&cell.updated_ns, now_ns)
    relaxed_store_half(&cell.count, count)
    relaxed_store(&t.drift, COST_DRIFT_ONE)
    guess_all(t)
    shared_add(&t.run_count, count)
    return 0


cdef void guess_all(CostTable* t) noexcept nogil:
    cdef uint32_t k
    for k in range(t.cell_count):
        if relaxed_load_half(&t.cells[k].count) == 0:
            guess(t, k)


cdef void guess(CostTable* t, uint32_t k) noexcept nogil:
    """A size that never ran: on the line between its neighbours that did; smaller ones take no longer than the least
    of those, larger ones as long for each row as the largest.
    """
    cdef CostCell* cell = &t.cells[k]
    cdef uint32_t lower = k, upper = k, past, span
    cdef bint has_lower = False, has_upper = False
    cdef uint64_t mean_ns = 0
    while lower > 0 and not has_lower:
        lower -= 1
        has_lower = relaxed_load_half(&t.cells[lower].count) != 0
    while upper + 1 < t.cell_count and not has_upper:
        upper += 1
        has_upper = relaxed_load_half(&t.cells[upper].count) != 0
    if has_lower and has_upper:
        past = cell.rows - t.cells[lower].rows
        span = t.cells[upper].rows - t.cells[lower].rows
        mean_ns = (
            relaxed_load(&t.cells[lower].mean_ns) * (span - past) + relaxed_load(&t.cells[upper].mean_ns) * past
        ) // span
    elif has_lower:
        mean_ns = min(relaxed_load(&t.cells[lower].mean_ns) * cell.rows // t.cells[lower].rows, MAX_NS)
    elif has_upper:
        mean_ns = relaxed_load(&t.cells[upper].mean_ns)
    relaxed_store(&cell.mean_ns, mean_ns)
    relaxed_store(&cell.deviation_ns, mean_ns // 8)


cdef void add_drift(CostTable* t, uint64_t ns, uint64_t base_ns) noexcept nogil:
    cdef int64_t drift = relaxed_load(&t.drift)
    cdef int64_t seen = clamped(ns * COST_DRIFT_ONE // (base_ns if base_ns else 1), drift // 4, drift * 4)
    relaxed_store(&t.drift, clamped(drift + (seen - drift) // 16, 16, DRIFT_MAX))


cdef void refresh(CostTable* t, uint32_t k, uint64_t now_ns) noexcept nogil:
    """Looks after one cell that the present run did not touch."""
    cdef CostCell* cell = &t.cells[k]
    cdef uint64_t updated_ns = relaxed_load(&cell.updated_ns)
    cdef int64_t mean_ns, deviation_ns, home_ns
    if relaxed_load_half(&cell.count) == 0:
        guess(t, k)
    elif now_ns > updated_ns and now_ns - updated_ns > STALE_NS:
        mean_ns = relaxed_load(&cell.mean_ns)
        deviation_ns = relaxed_load(&cell.deviation_ns)
        home_ns = clamped(relaxed_load(&cell.base_ns) * relaxed_load(&t.drift) // COST_DRIFT_ONE, 1, MAX_NS)
        relaxed_store(&cell.mean_ns, mean_ns + (home_ns - mean_ns) // 4)
        relaxed_store(&cell.deviation_ns, deviation_ns + (home_ns // 8 - deviation_ns) // 4)


cdef void move(CostCell* cell, int64_t ns, uint64_t now_ns) noexcept nogil:
    """A sample for the size of this cell."""
    cdef uint32_t count = relaxed_load_half(&cell.count)
    cdef int64_t gain, error, deviation_ns
    if count:
        gain = min(count + 1, MEMORY_RUNS)
        error = ns - <int64_t>relaxed_load(&cell.mean_ns)
        deviation_ns = relaxed_load(&cell.deviation_ns)
        relaxed_store(&cell.mean_ns, relaxed_load(&cell.mean_ns) + error // gain)
        relaxed_store(&cell.deviation_ns, deviation_ns + ((error if error > 0 else -error) - deviation_ns) // gain)
    else:
        relaxed_store(&cell.mean_ns, ns)
        relaxed_store(&cell.base_ns, ns)
        relaxed_store(&cell.deviation_ns, ns // 8)
    relaxed_store(&cell.updated_ns, now_ns)
    if count < 0x7FFFFFFF:
        relaxed_store_half(&cell.count, count + 1)


cdef void cost_add(ArenaView* v, uint32_t rows, uint64_t ns, uint64_t now_ns) noexcept nogil:
    """One run of `rows` rows took `ns`, without others in between."""
    cdef CostTable* t = v.cost
    cdef uint32_t k, past, span, swept = relaxed_load(&t.run_count) % t.cell_count
    cdef uint64_t expected_ns, base_ns, shape
    cdef CostCell* below
    cdef CostCell* above
    cdef CostCell* cell
    cdef bint is_new
    rows = <uint32_t>clamped(rows, 1, t.cells[t.cell_count - 1].rows)
    ns = clamped(ns, 1, MAX_NS)
    k = cost_cell_below(t, rows)
    below = &t.cells[k]
    above = &t.cells[min(k + 1, t.cell_count - 1)]
    past = rows - below.rows
    span = above.rows - below.rows
    cell = below if 2 * past <= span else above
    is_new = relaxed_load_half(&cell.count) == 0
    if relaxed_load_half(&below.count) and (past == 0 or relaxed_load_half(&above.count)):
        expected_ns = cost_within(t, rows, False)
        base_ns = relaxed_load(&below.base_ns)
        if past:
            base_ns = (base_ns * (span - past) + relaxed_load(&above.base_ns) * past) // span
        if relaxed_load_half(&cell.count) >= TRUSTED_RUNS:
            ns = clamped(ns, expected_ns // 4, expected_ns * 4)
        add_drift(t, ns, base_ns)
        if rows != cell.rows:
            shape = relaxed_load(&cell.mean_ns) * 1024 // (expected_ns if expected_ns else 1)
            ns = ns * clamped(shape, 256, 4096) // 1024
    else:
        ns = min(ns * cell.rows // rows, MAX_NS)
    move(cell, clamped(ns, 1, MAX_NS), now_ns)
    if is_new:
        guess_all(t)
    elif &t.cells[swept] != cell:
        refresh(t, swept, now_ns)
    shared_add(&t.run_count, 1)


def learn(Arena arena not None, uint32_t rows, uint64_t ns, uint64_t deviation_ns, uint32_t count, uint64_t now_ns):
    if rows == 0 or cost_learn(&arena.view, rows, ns, deviation_ns, count, now_ns) < 0:
        raise ValueError(f"{count} runs of {rows} rows: expected one of {sizes(arena)} and a run")


def add(Arena arena not None, uint32_t rows, uint64_t ns, uint64_t now_ns):
    cost_add(&arena.view, rows, ns, now_ns)


def sizes(Arena arena not None):
    cdef uint32_t k
    return [arena.view.cost.cells[k].rows for k in range(arena.view.cost.cell_count)]


def cells(Arena arena not None):
    cdef uint32_t k
    cdef CostCell* cell
    found = []
    for k in range(arena.view.cost.cell_count):
        cell = &arena.view.cost.cells[k]
        found.append((cell.rows, relaxed_load(&cell.mean_ns), cell_ns(cell, True), relaxed_load_half(&cell.count)))
    return found


def of(Arena arena not None, uint64_t rows):
    return cost_of(&arena.view, rows)


def upper(Arena arena not None, uint64_t rows):
    return cost_upper(&arena.view, rows)


def largest_within(Arena arena not None, uint64_t budget_ns):
    return cost_largest_within(&arena.view, budget_ns)


def rate(Arena arena not None):
    return cost_rate(&arena.view)
