"""One input of a request into memory, whatever form it came in: JSON numbers and strings, bytes, protobuf fields,
clients' shared memory.

The one place that knows all forms: a new form is one more branch here. BYTES that are not binary come whole, in one
call: their size in a slab is known, but not where a row ends. The destination belongs to the caller. Any thread, one
per filler; O(bytes).
"""

from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy

from server._fast.infer_json_fill cimport FillCursor, infer_json_fill_begin, infer_json_fill_end, infer_json_fill_next
from server._fast.infer_shared cimport infer_shared_read
from server._fast.infer_spec cimport DTYPE_BYTES, WIRE_SOURCE_NONE, WIRE_SOURCE_SHARED, InferError, InputRef
from server._fast.infer_strings cimport infer_strings_fill
from server._fast.wire_fill cimport WireCursor, infer_wire_fill_begin, infer_wire_fill_end, infer_wire_fill_next


cdef struct InputFiller:
    const InputRef* source
    const char* bytes
    uint64_t shared_bytes  # read so far
    FillCursor json
    WireCursor wire


cdef inline void filler_begin(InputFiller* f, const InputRef* source) noexcept nogil:
    f.source = source
    if source.is_binary:
        f.bytes = source.bytes.p
    elif source.wire_source == WIRE_SOURCE_SHARED:
        f.shared_bytes = 0
    elif source.dtype == DTYPE_BYTES:
        pass
    elif source.wire_source != WIRE_SOURCE_NONE:
        infer_wire_fill_begin(&f.wire, source)
    else:
        infer_json_fill_begin(&f.json, source.json_data, source.dtype)


cdef inline int filler_next(InputFiller* f, int64_t element_count, uint64_t size_bytes, char* dst,
                            InferError* error) noexcept nogil:
    """The next elements, `size_bytes` in all: 0, or -1 and a text."""
    if f.source.is_binary:
        memcpy(dst, f.bytes, size_bytes)
        f.bytes += size_bytes
        return 0
    if f.source.wire_source == WIRE_SOURCE_SHARED:
        return infer_shared_read(f.source, &f.shared_bytes, dst, size_bytes, error)
    if f.source.dtype == DTYPE_BYTES:
        infer_strings_fill(f.source, dst)
        return 0
    if f.source.wire_source != WIRE_SOURCE_NONE:
        return infer_wire_fill_next(&f.wire, element_count, dst, error)
    return infer_json_fill_next(&f.json, element_count, dst, error)


cdef inline int filler_end(InputFiller* f, InferError* error) noexcept nogil:
    """Whether nothing is left: 0, or -1 and a text."""
    if f.source.is_binary or f.source.dtype == DTYPE_BYTES or f.source.wire_source == WIRE_SOURCE_SHARED:
        return 0
    if f.source.wire_source != WIRE_SOURCE_NONE:
        return infer_wire_fill_end(&f.wire, error)
    return infer_json_fill_end(&f.json, error)
