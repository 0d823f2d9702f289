"""JSON arrays of numbers to tensor rows: C face over number_arrays.h, and the Python face that tests use.

The contract is in infer_json_fill.pxd. This module is C++ because number_arrays.h is templates over std::from_chars,
one instance per datatype; nothing else happens here. No memory of its own, no state between calls, any thread; O(text
bytes).
"""

from libc.stdint cimport int64_t

from server._fast.infer_spec cimport InferError, Span, dtype_from_name, dtype_width_bytes, raise_infer_error


cdef extern from "number_arrays.h" nogil:
    void number_array_begin(FillCursor* c, const char* p, size_t n, int dtype) noexcept
    int number_array_next(FillCursor* c, int64_t count, char* dst, InferError* err) noexcept
    int number_array_end(FillCursor* c, InferError* err) noexcept


cdef int infer_json_fill(Span data, int dtype, int64_t element_count, char* dst, InferError* err) noexcept nogil:
    cdef FillCursor cursor
    number_array_begin(&cursor, data.p, data.n, dtype)
    if number_array_next(&cursor, element_count, dst, err) < 0:
        return -1
    return number_array_end(&cursor, err)


cdef void infer_json_fill_begin(FillCursor* c, Span data, int dtype) noexcept nogil:
    number_array_begin(c, data.p, data.n, dtype)


cdef int infer_json_fill_next(FillCursor* c, int64_t element_count, char* dst, InferError* err) noexcept nogil:
    return number_array_next(c, element_count, dst, err)


cdef int infer_json_fill_end(FillCursor* c, InferError* err) noexcept nogil:
    return number_array_end(c, err)


def fill(const unsigned char[::1] data, str datatype, counts):
    """See infer_json_fill.pyi."""
    cdef bytes name = datatype.encode()
    cdef int dtype = dtype_from_name(name, <size_t>len(name))
    cdef FillCursor cursor
    cdef InferError err
    cdef Span text
    cdef unsigned char[::1] part
    cdef int64_t count
    text.p = <const char*>&data[0]
    text.n = <size_t>data.shape[0]
    infer_json_fill_begin(&cursor, text, dtype)
    parts = []
    for count in counts:
        made = bytearray(count * <int64_t>dtype_width_bytes(dtype) + 1)
        part = made
        if infer_json_fill_next(&cursor, count, <char*>&part[0], &err) < 0:
            raise_infer_error(&err)
        parts.append(bytes(made[: len(made) - 1]))
    if infer_json_fill_end(&cursor, &err) < 0:
        raise_infer_error(&err)
    return parts
