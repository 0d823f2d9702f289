"""Small words of HTTP/1.1: byte classes, names in any case, numbers, hosts.

Knows no message. Inline leaves for the parsers beside it; reads only the n bytes it is given, allocates nothing, any
thread. O(n).
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef extern from "http1_scan.h" nogil:
    bint h1_is_token(unsigned char c)
    bint h1_is_text(unsigned char c)
    # the first byte of [p, end) outside the class, or end; reads only [base, end)
    const char* h1_scan_token(const char* base, const char* p, const char* end)
    const char* h1_scan_target(const char* base, const char* p, const char* end)
    const char* h1_scan_text(const char* base, const char* p, const char* end)


cdef inline bint http1_name_is(const char* p, const char* lower, size_t n) noexcept nogil:
    """Whether n token bytes equal `lower`, in any case of letters. With a constant n this is one to four loads: bit 5
    folds the case, and no token byte but '-' folds to '-'."""
    cdef uint64_t fold = 0x2020202020202020
    cdef uint64_t a, b
    cdef size_t i = 0
    if n < 8:
        a = 0
        b = 0
        memcpy(&a, p, n)
        memcpy(&b, lower, n)
        return (a | fold) == (b | fold)
    while i + 8 < n:
        memcpy(&a, p + i, 8)
        memcpy(&b, lower + i, 8)
        if (a | fold) != b:
            return False
        i += 8
    memcpy(&a, p + n - 8, 8)
    memcpy(&b, lower + n - 8, 8)
    return (a | fold) == b


cdef inline bint http1_equals(const char* p, const char* lower, size_t n) noexcept nogil:
    """Whether n bytes of any kind equal the lower-case text, in any case of letters."""
    cdef size_t i
    cdef char c
    for i in range(n):
        c = p[i]
        if c >= c'A' and c <= c'Z':
            c |= 0x20
        if c != lower[i]:
            return False
    return True


cdef inline bint http1_is_blank(char c) noexcept nogil:
    return c == c' ' or c == c'\t'


cdef inline bint http1_is_digit(char c) noexcept nogil:
    return c >= c'0' and c <= c'9'


cdef inline bint http1_is_alnum(char c) noexcept nogil:
    return http1_is_digit(c) or ((c | 0x20) >= c'a' and (c | 0x20) <= c'z')


cdef inline bint http1_is_hex(char c) noexcept nogil:
    return http1_is_digit(c) or ((c | 0x20) >= c'a' and (c | 0x20) <= c'f')


cdef inline int64_t http1_decimal(const char* p, size_t n) noexcept nogil:
    """1*DIGIT below 2^63 without leading zeros; -1 for anything else."""
    cdef uint64_t value = 0
    cdef size_t i
    if n == 0 or n > 19 or (n > 1 and p[0] == c'0'):
        return -1
    for i in range(n):
        if not http1_is_digit(p[i]):
            return -1
        value = value * 10 + <uint64_t>(p[i] - c'0')
    if value > <uint64_t>0x7FFFFFFFFFFFFFFF:
        return -1
    return <int64_t>value


cdef inline bint http1_is_host(const char* p, size_t n) noexcept nogil:
    """uri-host [":" port], with registered names held to letters, digits and "-._~"."""
    cdef size_t i = 0
    cdef size_t digits
    cdef uint32_t port = 0
    cdef char c
    if n == 0:
        return False
    if p[0] == c'[':
        i = 1
        while i < n and (p[i] == c':' or p[i] == c'.' or http1_is_hex(p[i])):
            i += 1
        if i < 3 or i == n or p[i] != c']':
            return False
        i += 1
    else:
        while i < n:
            c = p[i]
            if not (http1_is_alnum(c) or c == c'-' or c == c'.' or c == c'_' or c == c'~'):
                break
            i += 1
        if i == 0:
            return False
    if i == n:
        return True
    if p[i] != c':':
        return False
    i += 1
    # an empty port is legal (RFC 3986 section 3.2.3)
    digits = n - i
    if digits > 5:
        return False
    while i < n:
        if not http1_is_digit(p[i]):
            return False
        port = port * 10 + <uint32_t>(p[i] - c'0')
        i += 1
    return port <= 65535


cdef inline size_t http1_list_item(const char* p, size_t n, size_t at, size_t* begin, size_t* end) noexcept nogil:
    """The item of a comma-separated list at `at`, without the blanks around it; where the next one starts, behind n
    after the last.
    """
    begin[0] = at
    while at < n and p[at] != c',':
        at += 1
    end[0] = at
    while begin[0] < end[0] and http1_is_blank(p[begin[0]]):
        begin[0] += 1
    while end[0] > begin[0] and http1_is_blank(p[end[0] - 1]):
        end[0] -= 1
    return at + 1
