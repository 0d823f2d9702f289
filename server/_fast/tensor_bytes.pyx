"""Binary tensor sections of a KServe V2 body, and the body that is nothing but one tensor.

The contract is in tensor_bytes.pxd; sizes and texts follow Triton's binary tensor data extension. Sections are spans of
the body, nothing is copied here: a row is filled by memcpy from its span. Allocates nothing, no state between calls,
any thread.
"""

from libc.stdint cimport UINT32_MAX, int64_t, uint64_t

from server._fast.infer_spec cimport (
    DTYPE_BOOL,
    DTYPE_BYTES,
    INFER_INVALID_ARGUMENT,
    WIRE_SOURCE_ELEMENT,
    InferError,
    InferRequest,
    InputRef,
    ModelSpec,
    Span,
    TensorSpec,
    dtype_width_bytes,
    infer_fail,
    infer_request_reset,
    infer_validate,
)


cdef int clip(Span text) noexcept nogil:
    return <int>text.n if text.n < 128 else 128


cdef int tensor_bytes_take(
    BinarySections* s, uint64_t byte_count, Span name, const ModelSpec* spec, Span* out, InferError* err
) noexcept nogil:
    cdef uint64_t left = <uint64_t>(s.end - s.p)
    if byte_count > left:
        return infer_fail(
            err, INFER_INVALID_ARGUMENT,
            b"unexpected size for input '%.*s', expecting %llu additional bytes for model '%.*s'",
            clip(name), name.p, <unsigned long long>(byte_count - left), clip(spec.name), spec.name.p,
        )
    out.p = s.p
    out.n = <size_t>byte_count
    s.p += byte_count
    return 0


cdef int tensor_bytes_end(const BinarySections* s, const ModelSpec* spec, InferError* err) noexcept nogil:
    if s.p == s.end:
        return 0
    return infer_fail(
        err, INFER_INVALID_ARGUMENT,
        b"unexpected additional input data for model '%.*s': %zu bytes behind the last tensor",
        clip(spec.name), spec.name.p, <size_t>(s.end - s.p),
    )


cdef int tensor_bytes_check(Span contents, int dtype, Span name, InferError* err) noexcept nogil:
    cdef size_t i
    cdef unsigned char high = 0
    if dtype != DTYPE_BOOL:
        return 0
    for i in range(contents.n):
        high |= <unsigned char>contents.p[i] & <unsigned char>0xFE
    if high == 0:
        return 0
    return infer_fail(
        err, INFER_INVALID_ARGUMENT,
        b"input '%.*s': BOOL elements are bytes 0 or 1, got another value", clip(name), name.p
    )


cdef int raw_element(
    Span body, const TensorSpec* want, const ModelSpec* spec, InferRequest* r, InferError* err
) noexcept nogil:
    """The body is the one element of a BYTES tensor, without a length before it."""
    cdef InputRef* given = &r.inputs[0]
    cdef int i
    given.spec_index = 0
    given.dtype = want.dtype
    given.rank = want.rank
    for i in range(want.rank):
        if want.dims[i] != 1 and not (i == 0 and want.dims[i] < 0):
            return infer_fail(
                err, INFER_INVALID_ARGUMENT,
                b"For BYTE datatype raw input '%.*s', the model must have input shape [1]",
                clip(want.name), want.name.p,
            )
        given.dims[i] = 1
    given.is_binary = 0
    given.wire_source = WIRE_SOURCE_ELEMENT
    given.wire = body
    given.wire_count = 1
    given.content_bytes = body.n
    given.last_bytes = 0
    r.n_inputs = 1
    if body.n > UINT32_MAX:
        return infer_fail(
            err, INFER_INVALID_ARGUMENT, b"input '%.*s': an element of BYTES has at most %u bytes, got %zu",
            clip(want.name), want.name.p, <unsigned>UINT32_MAX, body.n,
        )
    return infer_validate(r, spec, err)


cdef int tensor_bytes_raw(Span body, const ModelSpec* spec, InferRequest* r, InferError* err) noexcept nogil:
    cdef TensorSpec* want
    cdef InputRef* given
    cdef int i
    cdef int free_axis = -1
    cdef size_t element_bytes
    infer_request_reset(r, spec)
    r.binary_output_default = 1
    if spec.n_inputs != 1:
        return infer_fail(
            err, INFER_INVALID_ARGUMENT,
            b"Raw request must only have 1 input (found 1) to be deduced but got %d inputs in '%.*s' model "
            b"configuration",
            spec.n_inputs, clip(spec.name), spec.name.p,
        )
    want = &spec.inputs[0]
    if want.dtype == DTYPE_BYTES:
        return raw_element(body, want, spec, r, err)
    given = &r.inputs[0]
    element_bytes = dtype_width_bytes(want.dtype)
    given.spec_index = 0
    given.dtype = want.dtype
    given.rank = want.rank
    for i in range(want.rank):
        given.dims[i] = want.dims[i]
        if spec.batched and i == want.batch_axis:
            given.dims[i] = 1
        elif want.dims[i] < 0:
            if free_axis >= 0:
                return infer_fail(
                    err, INFER_INVALID_ARGUMENT,
                    b"The shape of the raw input '%.*s' can not be deduced because there are more than one "
                    b"variable-sized "
                    b"dimension",
                    clip(want.name), want.name.p,
                )
            free_axis = i
        else:
            element_bytes *= <size_t>want.dims[i]
    if free_axis >= 0:
        given.dims[free_axis] = <int64_t>(body.n // element_bytes) if element_bytes else 0
    given.is_binary = 1
    given.bytes = body
    r.n_inputs = 1
    if infer_validate(r, spec, err) < 0:
        return -1
    return tensor_bytes_check(given.bytes, given.dtype, want.name, err)
