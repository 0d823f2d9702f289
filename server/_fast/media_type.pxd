"""Which Content-Type an inference may have. One inline leaf, O(bytes)."""

from server._fast.http1_text cimport http1_equals


cdef inline bint is_media_type_known(const char* p, size_t n) noexcept nogil:
    """JSON, binary, or what clients send when nobody told them: nothing, or a form (curl -d). Parameters do not
    count.
    """
    cdef size_t end = 0
    if n == 0:
        return True
    while end < n and p[end] != c';' and p[end] != c' ' and p[end] != c'\t':
        end += 1
    if end == 16 and http1_equals(p, b"application/json", 16):
        return True
    if end == 24 and http1_equals(p, b"application/octet-stream", 24):
        return True
    if end == 33 and http1_equals(p, b"application/x-www-form-urlencoded", 33):
        return True
    return end >= 5 and (http1_equals(p + end - 5, b"+json", 5) or http1_equals(p + end - 5, b"/json", 5))
