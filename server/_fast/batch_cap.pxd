"""C face of the batch cap: rows that a run has at most, since more did not fit into memory."""

from libc.stdint cimport uint32_t

from server._fast.atomics cimport relaxed_load_half
from server._fast.layout cimport ArenaView


cdef inline uint32_t capped(ArenaView* v, uint32_t row_limit) noexcept nogil:
    """The smaller of the cap and another limit; 0 is none."""
    cdef uint32_t rows = relaxed_load_half(&v.cost.cap_rows)
    return rows if rows and (row_limit == 0 or rows < row_limit) else row_limit
