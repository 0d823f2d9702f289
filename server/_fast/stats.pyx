"""Statistics blocks of an arena, read out as plain numbers.

A block has one writer (a worker slot or the executor) and any number of readers, who see each counter whole but not
all at one instant. The arena owns the memory. Reading is O(buckets) per block and takes no lock.
"""

from libc.stdint cimport uint64_t

from server._fast.atomics cimport relaxed_load
from server._fast.layout cimport BATCH_BUCKETS, FAILURE_REASONS, HISTOGRAM_BUCKETS, Arena, Histogram, StatsBlock


cdef tuple histogram(Histogram* h):
    cdef int k
    return relaxed_load(&h.sum_ns), [relaxed_load(&h.counts[k]) for k in range(HISTOGRAM_BUCKETS)]


def read_block(Arena arena not None, int index):
    """One block as a dict; index is a worker slot, or owner_count for the executor."""
    if not 0 <= index <= <int>arena.view.header.owner_count:
        raise IndexError(f"block {index}: expected 0..{arena.view.header.owner_count}")
    cdef StatsBlock* s = &arena.view.stats[index]
    cdef int k
    request_sum, request_counts = histogram(&s.request_ns)
    queue_sum, queue_counts = histogram(&s.queue_ns)
    execute_sum, execute_counts = histogram(&s.execute_ns)
    return {
        "success_count": relaxed_load(&s.success_count),
        "failure_counts": [relaxed_load(&s.failure_counts[k]) for k in range(FAILURE_REASONS)],
        "row_count": relaxed_load(&s.row_count),
        "parse_ns": relaxed_load(&s.parse_ns),
        "reply_ns": relaxed_load(&s.reply_ns),
        "last_inference_ms": relaxed_load(&s.last_inference_ms),
        "execution_count": relaxed_load(&s.execution_count),
        "busy_ns": relaxed_load(&s.busy_ns),
        "inflight_count": relaxed_load(&s.inflight_count),
        "failure_ns": relaxed_load(&s.failure_ns),
        "late_count": relaxed_load(&s.late_count),
        "outlived_count": relaxed_load(&s.outlived_count),
        "predicted_count": relaxed_load(&s.predicted_count),
        "request_sum_ns": request_sum,
        "request_counts": request_counts,
        "queue_sum_ns": queue_sum,
        "queue_counts": queue_counts,
        "execute_sum_ns": execute_sum,
        "execute_counts": execute_counts,
        "batch_counts": [relaxed_load(&s.batch_counts[k]) for k in range(BATCH_BUCKETS)],
        "batch_ns": [relaxed_load(&s.batch_ns[k]) for k in range(BATCH_BUCKETS)],
    }


def bucket_of(uint64_t value_ns):
    """The histogram bucket of a duration in nanoseconds."""
    return histogram_bucket(value_ns)


def batch_bucket_of(uint64_t rows):
    """The batch-size bucket of a number of rows."""
    return batch_bucket(rows)
