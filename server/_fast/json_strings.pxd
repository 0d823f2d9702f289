"""BYTES elements of a reply as JSON strings, for the writers of every JSON protocol.

JSON is UTF-8: an element that is not is refused, not mended. Borrows the element, appends to the caller's OutBuf; any
thread; O(bytes).
"""

from libc.stdint cimport int64_t

from server._fast.infer_spec cimport (
    INFER_INTERNAL,
    INFER_INVALID_ARGUMENT,
    InferError,
    Span,
    infer_fail,
)
from server._fast.outbuf cimport OutBuf, outbuf_reserve


cdef extern from "json_text.h" nogil:
    size_t json_text_bytes(const char* p, size_t n) noexcept
    char* json_text_put(char* dst, const char* p, size_t n) noexcept


cdef extern from "utf8.h" nogil:
    int utf8_is_valid(const char* p, size_t n) noexcept


cdef extern from "bytes_form.h" nogil:
    int bytes_next(const char** p, const char* end, Span* element) noexcept


cdef inline int clip(Span text) noexcept nogil:
    """A precision for %.*s: long names are cut."""
    return <int>text.n if text.n < 128 else 128


cdef inline int fail_no_memory(InferError* err) noexcept nogil:
    return infer_fail(err, INFER_INTERNAL, b"out of memory for the reply")


cdef inline int next_element(
    const char** p, const char* end, Span* element, Span output, InferError* err
) noexcept nogil:
    """The element at *p of output `output`: 0, or -1 and a text."""
    if bytes_next(p, end, element) == 1:
        return 0
    return infer_fail(
        err, INFER_INTERNAL, b"output '%.*s': its elements are not complete",
        clip(output), output.p,
    )


cdef inline int write_string(
    OutBuf* b, Span element, int64_t index, Span output, const char* remedy, InferError* err
) noexcept nogil:
    """Element number `index` and a comma: 0, or -1 and a text."""
    cdef char* p
    if not utf8_is_valid(element.p, element.n):
        return infer_fail(
            err, INFER_INVALID_ARGUMENT, b"output '%.*s': element %lld is not UTF-8, which JSON cannot carry: %s",
            clip(output), output.p, <long long>index, remedy,
        )
    if outbuf_reserve(b, json_text_bytes(element.p, element.n) + 1) < 0:
        return fail_no_memory(err)
    p = json_text_put(b.data + b.len, element.p, element.n)
    p[0] = b","
    b.len = <size_t>(p + 1 - b.data)
    return 0
