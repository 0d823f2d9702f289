"""tensorflow.serving.PredictResponse: lengths first, then one pass of writing.

The contract is in tensor_proto_reply.pxd, the encoding of elements in wire_elements.h. FP32, FP64, BOOL and
tensor_content are copied; other *_val fields are varints, counted once for the lengths and written once; strings are
fields of their own, never tensor_content. No state
between calls, no memory but the caller's OutBuf, any thread; O(bytes).
"""

from libc.stdint cimport INT32_MAX, INT64_MAX, int64_t, uint8_t, uint64_t
from libc.string cimport memcpy, memset

from server._fast.infer_spec cimport ModelSpec, ReplyTensor, Segment, Span, Spec, dtype_width_bytes
from server._fast.infer_wire_reply cimport ReplyTensors
from server._fast.outbuf cimport OutBuf, outbuf_free, outbuf_reserve
from server._fast.proto_scan cimport (
    WIRE_BYTES,
    proto_bytes_field_bytes,
    proto_put_bytes,
    proto_put_head,
    proto_put_varint,
    proto_varint_bytes,
)


cdef extern from "wire_elements.h" nogil:
    ctypedef struct WireField:
        uint8_t number
        uint8_t wire

    enum: WIRE_SOURCE_TENSOR_PROTO, WIRE_BYTES_FIELD
    WireField wire_field(int source, int dtype) noexcept
    size_t wire_packed_bytes(const char* src, size_t count, int dtype) noexcept
    char* wire_put_packed(char* dst, const char* src, size_t count, int dtype) noexcept


cdef extern from "bytes_form.h" nogil:
    int bytes_next(const char** p, const char* end, Span* element) noexcept


cdef extern from "tensorflow_types.h" nogil:
    int tensorflow_number(int dtype) noexcept


cdef enum:
    TENSOR_CONTENT = 4


# Lengths of one output's nested messages.
cdef struct Sizes:
    int number             # field of the elements
    size_t elements
    size_t shape
    size_t tensor          # the TensorProto
    size_t entry           # the map entry around it


cdef inline size_t dim_bytes(int64_t dim) noexcept nogil:
    """A Dim: its size, unless that is the default."""
    return 1 + proto_varint_bytes(<uint64_t>dim) if dim else 0


cdef size_t string_bytes(const Segment* segment) noexcept nogil:
    """BYTES elements as string_val: each a field of its own."""
    cdef const char* p = segment.p
    cdef const char* end = p + segment.n
    cdef Span element
    cdef size_t n = 0
    while bytes_next(&p, end, &element) > 0:
        n += proto_bytes_field_bytes(element.n)
    return n


cdef char* put_strings(char* dst, const Segment* segment) noexcept nogil:
    cdef const char* p = segment.p
    cdef const char* end = p + segment.n
    cdef Span element
    while bytes_next(&p, end, &element) > 0:
        dst = proto_put_bytes(dst, WIRE_BYTES_FIELD, element.p, element.n)
    return dst


cdef Sizes sizes_of(const ModelSpec* spec, const ReplyTensor* tensor, int as_content) noexcept nogil:
    cdef Sizes s
    cdef size_t width = dtype_width_bytes(tensor.dtype)
    cdef int i
    s.number = TENSOR_CONTENT if as_content and width else wire_field(WIRE_SOURCE_TENSOR_PROTO, tensor.dtype).number
    s.elements = s.shape = 0
    for i in range(tensor.rank):
        s.shape += proto_bytes_field_bytes(dim_bytes(tensor.dims[i]))
    for i in range(tensor.n_segments):
        if width == 0:
            s.elements += string_bytes(&tensor.segments[i])
        elif as_content:
            s.elements += tensor.segments[i].n
        else:
            s.elements += wire_packed_bytes(tensor.segments[i].p, tensor.segments[i].n // width, tensor.dtype)
    s.tensor = 2 + proto_bytes_field_bytes(s.shape)
    if width == 0:
        s.tensor += s.elements
    elif s.elements:
        s.tensor += proto_bytes_field_bytes(s.elements) + (1 if s.number > 15 else 0)
    s.entry = proto_bytes_field_bytes(spec.outputs[tensor.spec_index].name.n) + proto_bytes_field_bytes(s.tensor)
    return s


cdef char* put_elements(char* p, const ReplyTensor* tensor, const Sizes* s, int as_content) noexcept nogil:
    cdef size_t width = dtype_width_bytes(tensor.dtype)
    cdef int i
    if s.elements == 0:
        return p
    if width == 0:
        for i in range(tensor.n_segments):
            p = put_strings(p, &tensor.segments[i])
        return p
    p = proto_put_varint(p, <uint64_t>(s.number << 3 | WIRE_BYTES))
    p = proto_put_varint(p, s.elements)
    for i in range(tensor.n_segments):
        if as_content:
            memcpy(p, tensor.segments[i].p, tensor.segments[i].n)
            p += tensor.segments[i].n
        else:
            p = wire_put_packed(p, tensor.segments[i].p, tensor.segments[i].n // width, tensor.dtype)
    return p


cdef char* put_output(
    char* p, const ModelSpec* spec, const ReplyTensor* tensor, const Sizes* s, int as_content
) noexcept nogil:
    cdef Span name = spec.outputs[tensor.spec_index].name
    cdef int i
    p = proto_put_head(p, 1, s.entry)
    p = proto_put_bytes(p, 1, name.p, name.n)
    p = proto_put_head(p, 2, s.tensor)
    p[0] = 8                                              # dtype
    p[1] = <char>tensorflow_number(tensor.dtype)
    p = proto_put_head(p + 2, 2, s.shape)
    for i in range(tensor.rank):
        p = proto_put_head(p, 2, dim_bytes(tensor.dims[i]))
        if tensor.dims[i]:
            p[0] = 8                                      # size
            p = proto_put_varint(p + 1, <uint64_t>tensor.dims[i])
    return put_elements(p, tensor, s, as_content)


cdef int64_t version_number(Span text) noexcept nogil:
    """-1 when the version is not a number."""
    cdef int64_t number = 0
    cdef size_t i
    cdef int digit
    for i in range(text.n):
        digit = text.p[i] - 48
        if digit < 0 or digit > 9 or number > (INT64_MAX - digit) // 10:
            return -1
        number = number * 10 + digit
    return number if text.n else -1


cdef char* put_model(char* p, const ModelSpec* spec, int64_t version) noexcept nogil:
    cdef size_t version_bytes = 1 + proto_varint_bytes(<uint64_t>version) if version > 0 else 0
    cdef size_t n = proto_bytes_field_bytes(spec.name.n) + proto_bytes_field_bytes(15)
    if version >= 0:
        n += proto_bytes_field_bytes(version_bytes)
    p = proto_put_head(p, 2, n)
    p = proto_put_bytes(p, 1, spec.name.p, spec.name.n)
    if version >= 0:
        p = proto_put_head(p, 2, version_bytes)
        if version > 0:
            p[0] = 8
            p = proto_put_varint(p + 1, <uint64_t>version)
    return proto_put_bytes(p, 3, b"serving_default", 15)


cdef int tfs_predict_reply(
    OutBuf* b, const ModelSpec* spec, const ReplyTensor* tensors, int count, int as_content
) noexcept nogil:
    cdef size_t n = spec.name.n + 64
    cdef Sizes sizes
    cdef char* p
    cdef int i
    for i in range(count):
        n += proto_bytes_field_bytes(sizes_of(spec, &tensors[i], as_content).entry)
    if n > INT32_MAX or outbuf_reserve(b, n) < 0:
        return -1
    p = b.data + b.len
    for i in range(count):
        sizes = sizes_of(spec, &tensors[i], as_content)
        p = put_output(p, spec, &tensors[i], &sizes, as_content)
    p = put_model(p, spec, version_number(spec.version))
    b.len = <size_t>(p - b.data)
    return 0


# ---- Python face

def reply(Spec spec, list tensors, bint as_content=False):
    """See tensor_proto_reply.pyi."""
    cdef ReplyTensors rows = ReplyTensors(spec, tensors)
    cdef OutBuf b
    memset(&b, 0, sizeof(b))
    try:
        if tfs_predict_reply(&b, spec.c, rows.c, rows.count, as_content) < 0:
            raise MemoryError
        return b.data[: b.len]
    finally:
        outbuf_free(&b)
