"""Strings of a predict body: one element, plain or {"b64": ...}, as a BYTES element of a slab.

Knows nothing of the lists around it. Borrows the text; the room is the caller's and has been measured by a pass
without it. Allocates nothing, any thread; O(bytes of the element). Source: TensorFlow Serving's api_rest.md, "Encoding
binary values".
"""

from libc.stdint cimport int64_t, uint64_t

from server._fast.infer_json_reader cimport (
    JsonScan,
    json_enter,
    json_key,
    json_more,
    json_peek,
    json_string,
    json_text_is,
)
from server._fast.infer_spec cimport Span


cdef extern from "json_text.h" nogil:
    size_t json_text_decode(Span text, char* dst) noexcept


cdef extern from "base64_text.h" nogil:
    int64_t base64_decode(Span text, char* dst) noexcept


cdef extern from "bytes_form.h" nogil:
    enum: BYTES_LENGTH_BYTES
    char* bytes_put_length(char* dst, size_t n) noexcept


cdef inline int read_b64(JsonScan* s, Span* text) noexcept nogil:
    """The object at the cursor: 1 and its text when {"b64": "..."} is all of it, 0 when not, -1 when it is no JSON; the
    cursor is behind the object only after 1.
    """
    cdef Span key
    cdef int escaped
    if json_enter(s, b"{") <= 0:
        return 0
    if json_key(s, &key, &escaped) < 0:
        return -1
    if not json_text_is(key, escaped, b"b64", 3) or json_peek(s) != b'"':
        return 0
    if json_string(s, text, &escaped) < 0:
        return -1
    return 1 if json_more(s, b"{") == 0 else 0


cdef inline bint is_b64(const JsonScan* s) noexcept nogil:
    """Whether the value at the cursor is {"b64": "..."}."""
    cdef JsonScan scan = s[0]
    cdef Span text
    return json_peek(&scan) == b"{" and read_b64(&scan, &text) == 1


cdef inline int64_t put_string(Span text, int is_base64, char* dst) noexcept nogil:
    """What an element takes in a slab, or -1 when it is no base64; written unless dst is NULL."""
    cdef char* bytes = NULL if dst == NULL else dst + BYTES_LENGTH_BYTES
    cdef int64_t n = base64_decode(text, bytes) if is_base64 else <int64_t>json_text_decode(text, bytes)
    if n < 0:
        return -1
    if dst != NULL:
        bytes_put_length(dst, <size_t>n)
    return n + BYTES_LENGTH_BYTES
