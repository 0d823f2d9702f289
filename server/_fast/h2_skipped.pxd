"""Which stream numbers of a connection a client passed over: RFC 9113 5.1.1 closes them unused.

libnghttp2 forgets closed streams, so it cannot tell a passed-over number from one whose stream ended long ago; frames
of the latter may be late, HEADERS of the former are an error of the connection. Clients count up without gaps, so a
few are kept; the oldest is forgotten, which only loses the error. One thread; O(1), no allocation.
"""

from libc.stdint cimport int32_t

cdef enum:
    MAX_GAPS = 4


cdef struct Skipped:
    int32_t last                   # the highest number that was opened
    int32_t count                  # of all gaps there ever were
    int32_t first[MAX_GAPS]
    int32_t end[MAX_GAPS]          # exclusive


cdef inline void skipped_open(Skipped* s, int32_t stream_id) noexcept nogil:
    """A stream opens, with a number above all before."""
    if stream_id > s.last + 2:
        s.first[s.count % MAX_GAPS] = s.last + 1
        s.end[s.count % MAX_GAPS] = stream_id
        # Far from an overflow: numbers end at 2**31, and a gap takes four of them.
        s.count += 1
    s.last = stream_id


cdef inline bint skipped_has(const Skipped* s, int32_t stream_id) noexcept nogil:
    """Whether this number was passed over. Costs a comparison where there are no gaps."""
    cdef int i
    for i in range(min(s.count, <int32_t>MAX_GAPS)):
        if s.first[i] <= stream_id < s.end[i]:
            return True
    return False
