"""Paths of TensorFlow Serving's predict call: /v1/models/NAME[/versions/N | /labels/LABEL]:predict.

Letters of the fixed parts in either case, as that server's `(?i)` pattern takes them; NAME and LABEL have neither '/'
nor ':' and may be percent-encoded (tfs_name_is compares). Knows no models. The spans borrow from the path. Allocates
nothing, any thread, O(bytes). server/protocol/tfs_routes.py has the same grammar for every other path below /v1/models.
"""

from libc.string cimport memcmp

from server._fast.infer_spec cimport Span


cdef inline bint tfs_word_at(const char* p, const char* end, const char* word, size_t n) noexcept nogil:
    """Whether p begins with `word`, which is lower case; its letters may be upper case at p."""
    cdef size_t i
    cdef unsigned char c
    if <size_t>(end - p) < n:
        return False
    for i in range(n):
        c = <unsigned char>p[i]
        if c >= 65 and c <= 90:
            c |= 32
        if c != <unsigned char>word[i]:
            return False
    return True


cdef inline const char* tfs_segment_end(const char* p, const char* end) noexcept nogil:
    while p != end and p[0] != b"/" and p[0] != b":":
        p += 1
    return p


cdef inline int tfs_predict_path(const char* path, size_t n, Span* name, Span* version, Span* label) noexcept nogil:
    """0, or -1 when the path is another one. version (without leading zeros) and label: n == 0 when absent."""
    cdef const char* p = path
    cdef const char* end = path + n
    version.p = label.p = NULL
    version.n = label.n = 0
    if not tfs_word_at(p, end, b"/v1/models/", 11):
        return -1
    p += 11
    name.p = p
    p = tfs_segment_end(p, end)
    name.n = <size_t>(p - name.p)
    if name.n == 0:
        return -1
    if tfs_word_at(p, end, b"/versions/", 10):
        p += 10
        version.p = p
        while p != end and p[0] >= b"0" and p[0] <= b"9":
            p += 1
        version.n = <size_t>(p - version.p)
        if version.n == 0:
            return -1
        while version.n > 1 and version.p[0] == b"0":
            version.p += 1
            version.n -= 1
    elif tfs_word_at(p, end, b"/labels/", 8):
        p += 8
        label.p = p
        p = tfs_segment_end(p, end)
        label.n = <size_t>(p - label.p)
        if label.n == 0:
            return -1
    return 0 if end - p == 8 and tfs_word_at(p, end, b":predict", 8) else -1


cdef inline int tfs_hex_digit(char c) noexcept nogil:
    if c >= b"0" and c <= b"9":
        return c - c'0'
    if c >= b"a" and c <= b"f":
        return c - c'a' + 10
    if c >= b"A" and c <= b"F":
        return c - c'A' + 10
    return -1


cdef inline bint tfs_name_is(Span raw, Span plain) noexcept nogil:
    """Whether a segment of the path, percent-decoded, is `plain`. A '%' without two digits stands for itself."""
    cdef const char* p = raw.p
    cdef const char* end = raw.p + raw.n
    cdef size_t at = 0
    cdef char c
    if raw.n == plain.n and memcmp(raw.p, plain.p, plain.n) == 0:
        return True
    while p != end:
        c = p[0]
        p += 1
        if c == b"%" and end - p >= 2 and tfs_hex_digit(p[0]) >= 0 and tfs_hex_digit(p[1]) >= 0:
            c = <char>(tfs_hex_digit(p[0]) * 16 + tfs_hex_digit(p[1]))
            p += 2
        if at == plain.n or plain.p[at] != c:
            return False
        at += 1
    return at == plain.n
