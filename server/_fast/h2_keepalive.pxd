"""How long an HTTP/2 connection lives and how often its client may ping, as gRPC's servers have it.

Knows times only. The memory is the connection's; one thread; O(1).
"""

from libc.stdint cimport uint64_t

cdef enum:
    #: More are a client to be sent away.
    MAX_PING_STRIKES = 2


cdef struct Age:
    uint64_t opened_ns
    uint64_t max_ns                # 0: none
    uint64_t grace_ns              # 0: none
    uint64_t closed_ns             # when the client was told for good; 0: not yet


cdef struct Pings:
    uint64_t min_ns                # between two pings of a client without open streams
    uint64_t last_ns               # 0: none since this side last sent headers or data
    int strikes


cdef inline void age_begin(Age* a, uint64_t now) noexcept nogil:
    """Spreads the limit by a tenth to either side: clients that came together shall not leave together."""
    a.opened_ns = now
    if a.max_ns > 10:
        # The time is as good as chance once its bits are mixed (by 2**64 / the golden ratio): clients come back in step
        # with our ticks.
        a.max_ns += ((now * <uint64_t>0x9E3779B97F4A7C15) >> 32) % (a.max_ns // 5) - a.max_ns // 10


cdef inline bint age_is_over(const Age* a, uint64_t now) noexcept nogil:
    return a.max_ns != 0 and now - a.opened_ns > a.max_ns


cdef inline bint age_is_grace_over(const Age* a, uint64_t now) noexcept nogil:
    return a.grace_ns != 0 and a.closed_ns != 0 and now - a.closed_ns > a.grace_ns


cdef inline void pings_answered(Pings* p) noexcept nogil:
    """Headers or data went out: gRPC's libraries ping when they come, to measure the way, which is no strike."""
    p.last_ns = 0
    p.strikes = 0


cdef inline bint pings_take(Pings* p, uint64_t now, bint has_streams) noexcept nogil:
    """A ping came: whether it may."""
    if has_streams:
        p.strikes = 0
    elif p.last_ns and now - p.last_ns < p.min_ns:
        p.strikes += 1
    p.last_ns = now
    return p.strikes <= MAX_PING_STRIKES
