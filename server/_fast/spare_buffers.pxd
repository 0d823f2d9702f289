"""Buffers that one stream has done with and the next one takes: of the common small size, and large ones.

A 4 KiB buffer costs a malloc outside glibc's fast bins, a 1 MiB one a page fault for every page: more than copying what
they hold. It knows nothing of streams. The owner of the struct owns what lies in it; one thread. Small ones stay, large
ones go at a tick before which none was taken. O(1); spare_reserve copies what the buffer holds.
"""

from libc.string cimport memcpy

from server._fast.outbuf cimport OutBuf, outbuf_free, outbuf_grow

cdef enum:
    SPARE_SMALL_BYTES = 4096       # what outbuf_grow makes first
    SPARE_SMALL_COUNT = 512
    SPARE_LARGE_BYTES = 1 << 22    # larger ones are not kept, nor made before their bytes are there
    SPARE_LARGE_LEAST_BYTES = 1 << 18
    SPARE_LARGE_COUNT = 4


cdef struct SpareBuffers:
    OutBuf small[512]
    OutBuf large[4]
    int small_count
    int large_count
    bint is_large_used             # since the last tick


cdef inline void spare_take(SpareBuffers* s, OutBuf* b) noexcept nogil:
    """An empty buffer gets a small one, if one is there."""
    if b.data == NULL and s.small_count > 0:
        s.small_count -= 1
        b[0] = s.small[s.small_count]
        b.len = 0


cdef inline void spare_give(SpareBuffers* s, OutBuf* b) noexcept nogil:
    """The buffer is not needed any more; it is empty afterwards."""
    if b.cap == SPARE_SMALL_BYTES and s.small_count < SPARE_SMALL_COUNT:
        s.small[s.small_count] = b[0]
        s.small_count += 1
    elif SPARE_LARGE_LEAST_BYTES <= b.cap <= SPARE_LARGE_BYTES and s.large_count < SPARE_LARGE_COUNT:
        s.large[s.large_count] = b[0]
        s.large_count += 1
        s.is_large_used = True
    else:
        outbuf_free(b)
        return
    b.data = NULL
    b.len = 0
    b.cap = 0


cdef inline int spare_reserve(SpareBuffers* s, OutBuf* b, size_t total) noexcept nogil:
    """Room for `total` bytes in all, from a spare buffer if one is large enough: 0, or -1 when memory is out.

    Above SPARE_LARGE_BYTES nothing is done: the buffer grows as its bytes come.
    """
    cdef OutBuf other
    cdef int i
    if total <= b.cap or total > SPARE_LARGE_BYTES:
        return 0
    for i in range(s.large_count):
        if s.large[i].cap >= total:
            other = s.large[i]
            s.large_count -= 1
            s.large[i] = s.large[s.large_count]
            s.is_large_used = True
            other.len = b.len
            if b.len:
                memcpy(other.data, b.data, b.len)
            spare_give(s, b)
            b[0] = other
            return 0
    return outbuf_grow(b, total - b.len)


cdef inline bint spare_tick(SpareBuffers* s) noexcept nogil:
    """Frees large buffers that nobody took since the last tick: whether there were any."""
    cdef bint was_used = s.is_large_used
    s.is_large_used = False
    if was_used or s.large_count == 0:
        return False
    while s.large_count:
        s.large_count -= 1
        outbuf_free(&s.large[s.large_count])
    return True


cdef inline void spare_free(SpareBuffers* s) noexcept nogil:
    s.is_large_used = False
    spare_tick(s)
    while s.small_count:
        s.small_count -= 1
        outbuf_free(&s.small[s.small_count])
