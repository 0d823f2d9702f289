"""C face of the header X-Request-Timeout: how long a client waits, in the request's own words.

A number of seconds, or a number with the unit s, ms or us: `0.25`, `1.5s`, `250ms`, `800us`. Digits, then perhaps a
point and digits; no sign, no exponent, no spaces. Nothing is kept; O(length). The reference is
tests/reference/request_timeout.py.
"""

from libc.stdint cimport int64_t, uint64_t

cdef enum:
    REQUEST_TIMEOUT_NONE = -1
    REQUEST_TIMEOUT_INVALID = -2

#: More digits than a century has microseconds say nothing that a client can mean.
cdef enum:
    REQUEST_TIMEOUT_DIGITS = 15

#: What a client is told whose header cannot be read.
cdef inline const char* request_timeout_text() noexcept nogil:
    return (
        b"malformed X-Request-Timeout: expected a number of seconds, or one with the unit s, ms or us, "
        b"such as 0.25 or 250ms"
    )


cdef inline int64_t request_timeout_ns(const char* p, size_t n) noexcept nogil:
    """The time in ns, rounded down, at most a century; or REQUEST_TIMEOUT_INVALID."""
    cdef uint64_t whole = 0, fraction = 0, unit_ns = 1000000000
    cdef uint64_t scale = 1
    cdef size_t at = 0, digits = 0
    while at < n and c'0' <= p[at] <= c'9':
        whole = whole * 10 + <uint64_t>(p[at] - c'0')
        at += 1
    if at == 0 or at > REQUEST_TIMEOUT_DIGITS:
        return REQUEST_TIMEOUT_INVALID
    if at < n and p[at] == c'.':
        at += 1
        while at < n and c'0' <= p[at] <= c'9':
            # Below a nanosecond there is nothing to keep.
            if digits < 9:
                fraction = fraction * 10 + <uint64_t>(p[at] - c'0')
                scale *= 10
            digits += 1
            at += 1
        if digits == 0 or digits > REQUEST_TIMEOUT_DIGITS:
            return REQUEST_TIMEOUT_INVALID
    if n - at == 2 and p[at + 1] == c's' and (p[at] == c'm' or p[at] == c'u'):
        unit_ns = 1000000 if p[at] == c'm' else 1000
    elif not (n == at or (n - at == 1 and p[at] == c's')):
        return REQUEST_TIMEOUT_INVALID
    if whole > <uint64_t>3155760000000000000 // unit_ns:
        return 3155760000000000000
    return <int64_t>(whole * unit_ns + fraction * unit_ns // scale)
