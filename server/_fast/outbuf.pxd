"""A growing byte buffer for replies.

Knows nothing of what it holds. The owner of the struct owns the memory and calls outbuf_free once; one thread at a
time. A write is O(n) plus an amortised doubling; after warm-up nothing is allocated. A failed allocation returns -1
and leaves the contents as they were.
"""

from libc.stdlib cimport free, realloc
from libc.string cimport memcpy


cdef struct OutBuf:
    char* data
    size_t len
    size_t cap


cdef inline int outbuf_grow(OutBuf* b, size_t extra) noexcept nogil:
    cdef size_t cap = b.cap * 2 if b.cap else 4096
    cdef size_t need = b.len + extra
    if need < extra:
        return -1
    while cap < need:
        if cap > (<size_t>1 << 62):
            return -1
        cap *= 2
    cdef char* grown = <char*>realloc(b.data, cap)
    if grown == NULL:
        return -1
    b.data = grown
    b.cap = cap
    return 0


cdef inline int outbuf_reserve(OutBuf* b, size_t extra) noexcept nogil:
    """Makes `extra` bytes writable behind data+len: 0, or -1 when memory is out."""
    if b.cap - b.len >= extra:
        return 0
    return outbuf_grow(b, extra)


cdef inline int outbuf_write(OutBuf* b, const char* p, size_t n) noexcept nogil:
    if n == 0:
        return 0  # p may be NULL then, which memcpy may not get
    if outbuf_reserve(b, n) < 0:
        return -1
    memcpy(b.data + b.len, p, n)
    b.len += n
    return 0


cdef inline void outbuf_free(OutBuf* b) noexcept nogil:
    free(b.data)
    b.data = NULL
    b.len = 0
    b.cap = 0
