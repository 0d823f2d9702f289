"""Token buckets: what a peer may do in a burst, and then so many a second. O(1), no allocation, one thread."""

from libc.stdint cimport uint64_t


cdef struct Bucket:
    double tokens
    double burst
    double per_s
    uint64_t filled_ns


cdef inline void bucket_fill(Bucket* b, double burst, double per_s, uint64_t now_ns) noexcept nogil:
    b.tokens = burst
    b.burst = burst
    b.per_s = per_s
    b.filled_ns = now_ns


cdef inline bint bucket_take(Bucket* b, uint64_t now_ns) noexcept nogil:
    """Takes a token: whether there was one."""
    b.tokens += (now_ns - b.filled_ns) * 1e-9 * b.per_s
    if b.tokens > b.burst:
        b.tokens = b.burst
    b.filled_ns = now_ns
    b.tokens -= 1
    return b.tokens >= 0
