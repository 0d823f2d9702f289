"""BYTES elements of a request into a slab, and the Python face that tests use.

The contract is in infer_strings.pxd, the form in bytes_form.h, JSON in string_arrays.h. Protobuf's elements lie in
every occurrence of the message around them, as merging would put them together. No memory of its own, no state between
calls, any thread; O(bytes).
"""

from libc.stdint cimport int64_t
from libc.string cimport memset

from server._fast.infer_spec cimport (
    DTYPE_BYTES,
    WIRE_SOURCE_CONTENTS,
    WIRE_SOURCE_ELEMENT,
    WIRE_SOURCE_NONE,
    InferError,
    InputRef,
    Span,
    raise_infer_error,
)
from server._fast.proto_scan cimport WIRE_BYTES, ProtoField, ProtoScan, proto_next, proto_start


cdef extern from "string_arrays.h" nogil:
    int string_array_measure(Span array, int64_t* count, size_t* bytes, InferError* err) noexcept
    char* string_array_write(Span array, char* dst) noexcept
    char* bytes_put(char* dst, const char* p, size_t n) noexcept


cdef extern from "wire_elements.h" nogil:
    enum: WIRE_CONTENTS_FIELD, WIRE_TENSOR_PROTO_FIELD, WIRE_BYTES_FIELD


cdef int infer_strings_measure(Span json_data, int64_t* count, size_t* bytes, InferError* err) noexcept nogil:
    return string_array_measure(json_data, count, bytes, err)


cdef void fill_wire(const InputRef* source, char* dst) noexcept nogil:
    """Elements of protobuf, then the last of them, or empty ones, for all that are missing."""
    cdef ProtoScan outer
    cdef ProtoScan inner
    cdef ProtoField f
    cdef Span last
    cdef int64_t count = 0
    cdef unsigned number = WIRE_TENSOR_PROTO_FIELD
    if source.wire_source == WIRE_SOURCE_CONTENTS:
        number = WIRE_CONTENTS_FIELD
    memset(&last, 0, sizeof(Span))
    proto_start(&outer, source.wire.p, source.wire.n, 2)
    while proto_next(&outer, &f) > 0:
        if f.number != number or f.wire != WIRE_BYTES:
            continue
        proto_start(&inner, f.bytes.p, f.bytes.n, 3)
        while proto_next(&inner, &f) > 0:
            if f.number == WIRE_BYTES_FIELD and f.wire == WIRE_BYTES:
                last = f.bytes
                dst = bytes_put(dst, last.p, last.n)
                count += 1
    while count < source.element_count:
        dst = bytes_put(dst, last.p, last.n)
        count += 1


cdef void infer_strings_fill(const InputRef* source, char* dst) noexcept nogil:
    if source.wire_source == WIRE_SOURCE_NONE:
        string_array_write(source.json_data, dst)
    elif source.wire_source == WIRE_SOURCE_ELEMENT:
        bytes_put(dst, source.wire.p, source.wire.n)
    else:
        fill_wire(source, dst)


def pack(const unsigned char[::1] text):
    """See infer_strings.pyi."""
    cdef InputRef source
    cdef InferError err
    cdef unsigned char[::1] room
    memset(&source, 0, sizeof(source))
    source.dtype = DTYPE_BYTES
    source.json_data.p = <const char*>&text[0]
    source.json_data.n = <size_t>text.shape[0]
    if infer_strings_measure(source.json_data, &source.wire_count, &source.content_bytes, &err) < 0:
        raise_infer_error(&err)
    n = source.wire_count * 4 + source.content_bytes
    made = bytearray(n + 1)
    room = made
    infer_strings_fill(&source, <char*>&room[0])
    return source.wire_count, bytes(made[:n])
