"""C face of the cost table: what a run of b rows takes on this lane, T(b), as its own runs have shown.

The table has a cell for 1, 2, 4, ... rows and for the capacity of a slab. Between two cells T is the straight line;
above the capacity it is that of whole batches and a rest. It is learnt at warm-up and from every run since
(cost_table.pyx). Readers take it as it is, without a lock: each number is whole, two need not be of one moment.

All of it is O(COST_CELLS). The reference is server.batching.cost.CostTable, to the nanosecond.
"""

from libc.stdint cimport uint32_t, uint64_t

from server._fast.atomics cimport relaxed_load, relaxed_load_half
from server._fast.layout cimport ArenaView, CostCell, CostTable


cdef inline uint64_t cell_ns(const CostCell* cell, bint upper) noexcept nogil:
    """Three mean deviations over the mean: what 99 of 100 runs stay below where times are normally distributed."""
    cdef uint64_t mean_ns = relaxed_load(&cell.mean_ns)
    return mean_ns + 3 * relaxed_load(&cell.deviation_ns) if upper else mean_ns


cdef inline uint32_t cost_cell_below(const CostTable* t, uint32_t rows) noexcept nogil:
    """The last cell with at most `rows` rows; rows >= 1."""
    cdef uint32_t k = 0
    while k + 1 < t.cell_count and t.cells[k + 1].rows <= rows:
        k += 1
    return k


cdef inline uint64_t cost_within(const CostTable* t, uint32_t rows, bint upper) noexcept nogil:
    """T of 1 to capacity rows."""
    cdef uint32_t k = cost_cell_below(t, rows), span, past = rows - t.cells[k].rows
    if past == 0:
        return cell_ns(&t.cells[k], upper)
    span = t.cells[k + 1].rows - t.cells[k].rows
    return (cell_ns(&t.cells[k], upper) * (span - past) + cell_ns(&t.cells[k + 1], upper) * past) // span


cdef inline uint64_t cost_estimate(ArenaView* v, uint64_t rows, bint upper) noexcept nogil:
    cdef const CostTable* t = v.cost
    cdef uint64_t capacity = t.cells[t.cell_count - 1].rows, total_ns
    if relaxed_load(&t.run_count) == 0:
        return 0
    total_ns = rows // capacity * cell_ns(&t.cells[t.cell_count - 1], upper)
    if rows % capacity:
        total_ns += cost_within(t, rows % capacity, upper)
    return total_ns


cdef inline bint cost_is_known(ArenaView* v) noexcept nogil:
    """Whether anything has run; what an executor learnt its successor knows."""
    return relaxed_load(&v.cost.run_count) != 0


cdef inline uint64_t cost_of(ArenaView* v, uint64_t rows) noexcept nogil:
    """Expected time of running so many rows on one instance; 0 while nothing is known."""
    return cost_estimate(v, rows, False)


cdef inline uint64_t cost_upper(ArenaView* v, uint64_t rows) noexcept nogil:
    """What about 99 of 100 such runs stay below; 0 while nothing is known."""
    return cost_estimate(v, rows, True)


cdef inline uint32_t cost_largest_within(ArenaView* v, uint64_t budget_ns) noexcept nogil:
    """The most rows whose cost_upper is within the budget, 0 if not even one row's is; the capacity while nothing is
    known.
    """
    cdef const CostTable* t = v.cost
    cdef uint32_t k = t.cell_count
    cdef uint64_t here_ns, above_ns = 0
    if relaxed_load(&t.run_count) == 0:
        return t.cells[t.cell_count - 1].rows
    while k > 0:
        k -= 1
        here_ns = cell_ns(&t.cells[k], True)
        if here_ns <= budget_ns:
            if k + 1 == t.cell_count:
                return t.cells[k].rows
            return t.cells[k].rows + <uint32_t>(
                (budget_ns - here_ns) * (t.cells[k + 1].rows - t.cells[k].rows) // (above_ns - here_ns)
            )
        above_ns = here_ns
    return 0


cdef inline double cost_rate(ArenaView* v) noexcept nogil:
    """Rows per second of one instance at the batch size that gives most; 0 while nothing is known."""
    cdef const CostTable* t = v.cost
    cdef uint32_t k
    cdef uint64_t mean_ns
    cdef double rate, best = 0
    if relaxed_load(&t.run_count) == 0:
        return 0
    for k in range(t.cell_count):
        mean_ns = relaxed_load(&t.cells[k].mean_ns)
        rate = t.cells[k].rows * 1e9 / mean_ns if mean_ns else 0
        best = rate if rate > best else best
    return best


# executor
cdef int cost_learn(ArenaView* v, uint32_t rows, uint64_t ns, uint64_t deviation_ns, uint32_t count,
                    uint64_t now_ns) noexcept nogil
cdef void cost_add(ArenaView* v, uint32_t rows, uint64_t ns, uint64_t now_ns) noexcept nogil
