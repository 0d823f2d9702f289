"""Repeated protobuf numbers to tensor rows.

The contract is in wire_fill.pxd, the encodings are in wire_elements.h. A cursor walks the message around the elements
(an input tensor of KServe V2, a map entry of TensorFlow Serving), in it each occurrence of the message that holds them,
in that each run of elements: a packed field, or a single one. No memory of its own, no state between calls, any thread;
O(message bytes).
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy, memset

from server._fast.infer_spec cimport (
    DTYPE_BYTES,
    INFER_INTERNAL,
    INFER_INVALID_ARGUMENT,
    WIRE_SOURCE_CONTENTS,
    WIRE_SOURCE_NONE,
    WIRE_SOURCE_SHARED,
    WIRE_SOURCE_TENSOR_PROTO,
    InferError,
    InferRequest,
    InputRef,
    ModelSpec,
    SharedRef,
    Span,
    dtype_name,
    dtype_width_bytes,
    infer_error_name_input,
    infer_fail,
    raise_infer_error,
)
from server._fast.infer_strings cimport infer_strings_fill
from server._fast.proto_scan cimport WIRE_BYTES, ProtoField, proto_next, proto_start, proto_varint


cdef extern from "wire_elements.h" nogil:
    ctypedef struct WireField:
        uint8_t number
        uint8_t wire

    enum: WIRE_CONTENTS_FIELD, WIRE_TENSOR_PROTO_FIELD
    WireField wire_field(int source, int dtype) noexcept
    int64_t wire_copy_elements(const char** p, const char* end, int dtype, int64_t count, char* dst) noexcept


cdef void infer_wire_fill_begin(WireCursor* c, const InputRef* source) noexcept nogil:
    cdef WireField field = wire_field(source.wire_source, source.dtype)
    memset(c, 0, sizeof(WireCursor))
    proto_start(&c.outer, source.wire.p, source.wire.n, 2)
    c.inner_number = WIRE_TENSOR_PROTO_FIELD
    if source.wire_source == WIRE_SOURCE_CONTENTS:
        c.inner_number = WIRE_CONTENTS_FIELD
    c.number = field.number
    c.wire = field.wire
    c.dtype = source.dtype
    c.repeat_last = source.wire_source == WIRE_SOURCE_TENSOR_PROTO


cdef int next_run(WireCursor* c) noexcept nogil:
    """Moves to the next run of elements: 1, or 0 behind the last one."""
    cdef ProtoField f
    while True:
        while proto_next(&c.inner, &f) > 0:
            if f.number == c.number and (f.wire == c.wire or f.wire == WIRE_BYTES) and f.bytes.n:
                c.run = f.bytes.p
                c.run_end = f.bytes.p + f.bytes.n
                return 1
        while True:
            if proto_next(&c.outer, &f) <= 0:
                return 0
            if f.number == c.inner_number and f.wire == WIRE_BYTES:
                break
        proto_start(&c.inner, f.bytes.p, f.bytes.n, c.outer.depth + 1)


cdef int fail_element(const WireCursor* c, InferError* err) noexcept nogil:
    """The number at the cursor does not fit."""
    cdef const char* p = c.run
    cdef uint64_t bits = 0
    proto_varint(&p, c.run_end, 10, &bits)
    return infer_fail(
        err, INFER_INVALID_ARGUMENT, b"element %lld: %lld does not fit %s",
        <long long>c.element_count, <long long>bits, dtype_name(c.dtype),
    )


cdef void repeat_last(WireCursor* c, int64_t count, size_t width, char* dst) noexcept nogil:
    cdef int64_t i
    for i in range(count):
        memcpy(dst + <size_t>i * width, c.last, width)


cdef int infer_wire_fill_next(WireCursor* c, int64_t element_count, char* dst, InferError* err) noexcept nogil:
    cdef size_t width = dtype_width_bytes(c.dtype)
    cdef int64_t done
    while element_count:
        if c.run == c.run_end and not next_run(c):
            if not c.repeat_last:
                return infer_fail(
                    err, INFER_INVALID_ARGUMENT, b"expected at least %lld elements, got %lld",
                    <long long>(c.element_count + element_count), <long long>c.element_count,
                )
            repeat_last(c, element_count, width, dst)
            c.element_count += element_count
            return 0
        done = wire_copy_elements(&c.run, c.run_end, c.dtype, element_count, dst)
        if done < 0:
            return infer_fail(err, INFER_INTERNAL, b"expected checked elements of %s", dtype_name(c.dtype))
        c.element_count += done
        element_count -= done
        dst += <size_t>done * width
        if c.repeat_last and done:
            memcpy(c.last, dst - width, width)
        if element_count and c.run != c.run_end:
            return fail_element(c, err)
    return 0


cdef int infer_wire_fill_end(WireCursor* c, InferError* err) noexcept nogil:
    if c.run == c.run_end and not next_run(c):
        return 0
    return infer_fail(
        err, INFER_INVALID_ARGUMENT, b"expected %lld elements, got more", <long long>c.element_count
    )


# ---- for the Python faces

cdef object span_or_none(Span span, const char* base):
    return None if span.p == NULL else (span.p - base, <Py_ssize_t>span.n)


cdef list contents_of(const InputRef* source, Span name, counts):
    """The elements of an input, in parts."""
    cdef WireCursor cursor
    cdef InferError err
    cdef bytearray made
    cdef unsigned char[::1] part
    cdef int64_t count
    cdef int status
    cdef Py_ssize_t width = <Py_ssize_t>dtype_width_bytes(source.dtype)
    infer_wire_fill_begin(&cursor, source)
    parts = []
    for count in counts:
        made = bytearray(count * width + 1)
        part = made
        with nogil:
            status = infer_wire_fill_next(&cursor, count, <char*>&part[0], &err)
        if status < 0:
            infer_error_name_input(&err, name)
            raise_infer_error(&err)
        parts.append(bytes(made[: count * width]))
    if infer_wire_fill_end(&cursor, &err) < 0:
        infer_error_name_input(&err, name)
        raise_infer_error(&err)
    return parts


cdef bytes strings_of(const InputRef* source):
    cdef bytearray made = bytearray(source.byte_count)
    infer_strings_fill(source, made)
    return bytes(made)


cdef object shared_or_none(const SharedRef* shared, const char* base):
    if shared == NULL:
        return None
    return shared.region.p[: shared.region.n], shared.offset, shared.byte_size


cdef dict request_as_dict(const InferRequest* r, const ModelSpec* spec, const char* base, row_counts):
    cdef int i
    cdef int k
    cdef const InputRef* source
    inputs = []
    for i in range(r.n_inputs):
        source = &r.inputs[i]
        inputs.append({
            "datatype": dtype_name(source.dtype).decode(),
            "shape": [source.dims[k] for k in range(source.rank)],
            "element_count": source.element_count,
            "byte_count": source.byte_count,
            "bytes": span_or_none(source.bytes, base) if source.is_binary else None,
            "shared": shared_or_none(source.shared, base) if source.wire_source == WIRE_SOURCE_SHARED else None,
            "parts": None if source.wire_source in (WIRE_SOURCE_NONE, WIRE_SOURCE_SHARED) or source.is_binary
            else [strings_of(source)] if source.dtype == DTYPE_BYTES
            else contents_of(
                source, spec.inputs[i].name, [n * source.element_count // r.rows for n in row_counts or [r.rows]]),
        })
    return {
        "id": r.id.p[: r.id.n] if r.has_id else None,
        "inputs": inputs,
        "outputs": [r.outputs[i].spec_index for i in range(r.n_outputs)],
        "class_counts": [r.outputs[i].class_count for i in range(r.n_outputs)],
        "shared_outputs": [shared_or_none(r.outputs[i].shared, base) for i in range(r.n_outputs)],
        "timeout_us": r.timeout_us,
        "priority": r.priority,
        "rows": r.rows,
    }
