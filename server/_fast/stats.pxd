"""C face of the statistics blocks: plain additions by the one writer of a block, no locks, nothing allocated."""

from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy

from server._fast.atomics cimport relaxed_add, shared_add
from server._fast.layout cimport BATCH_EXACT, HISTOGRAM_BUCKETS, Histogram, StatsBlock


#: Reasons of failure_counts, Triton's words.
cdef enum FailureReason:
    REASON_REJECTED = 0
    REASON_CANCELED = 1
    REASON_TIMEOUT = 2
    REASON_INVALID = 3
    REASON_INTERNAL = 4
    REASON_OTHER = 5


cdef inline int histogram_bucket(uint64_t value_ns) noexcept nogil:
    """The bucket whose upper bound 2^(k/8) microseconds is the first that is not below the value."""
    cdef double micros = value_ns * 1e-3
    cdef uint64_t bits
    cdef double mantissa
    cdef int k
    if micros <= 1.0:
        return 0
    memcpy(&bits, &micros, 8)
    k = (<int>(bits >> 52) - 1023) * 8
    bits = (bits & <uint64_t>0xFFFFFFFFFFFFF) | (<uint64_t>1023 << 52)
    memcpy(&mantissa, &bits, 8)
    k += (
        (mantissa > 1.0) + (mantissa > 1.0905077326652577) + (mantissa > 1.189207115002721)
        + (mantissa > 1.2968395546510096) + (mantissa > 1.4142135623730951) + (mantissa > 1.5422108254079407)
        + (mantissa > 1.681792830507429) + (mantissa > 1.8340080864093424)
    )
    return k if k < HISTOGRAM_BUCKETS - 1 else HISTOGRAM_BUCKETS - 1


cdef inline void histogram_add(Histogram* h, int64_t value_ns) noexcept nogil:
    if value_ns < 0:
        value_ns = 0
    relaxed_add(&h.sum_ns, value_ns)
    relaxed_add(&h.counts[histogram_bucket(value_ns)], 1)


cdef inline int batch_bucket(uint64_t rows) noexcept nogil:
    """1..128 exactly, then upper bounds 256, 512, ... 16384."""
    cdef int k = BATCH_EXACT
    cdef uint64_t bound = 2 * BATCH_EXACT
    if rows <= BATCH_EXACT:
        return <int>rows - 1 if rows else 0
    while rows > bound and k < BATCH_EXACT + 7:
        bound *= 2
        k += 1
    return k


cdef inline void stats_batch(StatsBlock* s, uint64_t rows, uint64_t run_ns) noexcept nogil:
    """One execution of `rows` rows; any instance of the executor calls, several at once."""
    cdef int k = batch_bucket(rows)
    shared_add(&s.execution_count, 1)
    shared_add(&s.busy_ns, run_ns)
    shared_add(&s.batch_counts[k], 1)
    shared_add(&s.batch_ns[k], run_ns)
