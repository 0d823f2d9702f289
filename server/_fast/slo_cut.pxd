"""C face of the latency target: how many rows of a sealed slab run now, and how busy an instance has been."""

from libc.stdint cimport uint32_t, uint64_t

from server._fast.layout cimport ArenaView
from server._fast.slab_ring cimport Batch


cdef enum:
    BUSY_ONE = 1024
    BUSY_WINDOW_RUNS = 16

#: The share of the last 16 to 32 runs' time in which an instance ran; zeroed memory is a new one.
cdef struct BusyMeter:
    uint64_t before_start_ns
    uint64_t before_busy_ns
    uint64_t start_ns
    uint64_t busy_ns
    uint32_t run_count


cdef inline void busy_add(BusyMeter* m, uint64_t start_ns, uint64_t end_ns) noexcept nogil:
    if m.start_ns == 0:
        m.before_start_ns = m.start_ns = start_ns
    m.busy_ns += end_ns - start_ns
    m.run_count += 1
    if m.run_count == BUSY_WINDOW_RUNS:
        m.before_start_ns = m.start_ns
        m.before_busy_ns = m.busy_ns
        m.start_ns = end_ns
        m.busy_ns = 0
        m.run_count = 0


cdef inline uint32_t busy_share(const BusyMeter* m, uint64_t now_ns) noexcept nogil:
    """In 1/BUSY_ONE; 0 before the first run."""
    cdef uint64_t share
    if m.start_ns == 0 or now_ns <= m.before_start_ns:
        return 0
    share = (m.before_busy_ns + m.busy_ns) * BUSY_ONE // (now_ns - m.before_start_ns)
    return <uint32_t>(share if share < BUSY_ONE else BUSY_ONE)


# executor, for a slab that it has sealed: 0 is all rows
cdef uint32_t slo_rows(ArenaView* v, const Batch* batch, uint32_t busy, uint64_t now_ns) noexcept nogil
