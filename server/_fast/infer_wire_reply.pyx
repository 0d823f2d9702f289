"""inference.ModelInferResponse: lengths first, then one pass of copying.

The contract is in infer_wire_reply.pxd. All fields have numbers below 16, so a head is one byte and a length. No state
between calls, no memory but the caller's OutBuf, any thread; O(bytes).
"""

from libc.stdint cimport INT32_MAX, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset, strlen

from server._fast.infer_classes cimport ClassReply, infer_classes_begin, infer_classes_end, infer_classes_wanted
from server._fast.infer_spec cimport (
    INFER_MAX_RANK,
    InferRequest,
    ModelSpec,
    ReplyTensor,
    Segment,
    Span,
    Spec,
    TensorSpec,
    dtype_name,
)
from server._fast.outbuf cimport OutBuf, outbuf_free, outbuf_reserve
from server._fast.proto_scan cimport (
    proto_bytes_field_bytes,
    proto_put_bytes,
    proto_put_head,
    proto_put_varint,
    proto_varint_bytes,
)


cdef enum:
    FINAL_RESPONSE_BYTES = 29
    REGION_BYTES = 20      # of the keys' names
    OFFSET_BYTES = 20
    SIZE_BYTES = 23


#: parameters {"triton_final_response": true}
cdef const char* FINAL_RESPONSE = b"\x22\x1b\x0a\x15triton_final_response\x12\x02\x08\x01"


cdef size_t shape_bytes(const ReplyTensor* tensor) noexcept nogil:
    cdef size_t n = 0
    cdef int i
    for i in range(tensor.rank):
        n += proto_varint_bytes(<uint64_t>tensor.dims[i])
    return n


cdef size_t segment_bytes(const ReplyTensor* tensor) noexcept nogil:
    cdef size_t n = 0
    cdef int i
    for i in range(tensor.n_segments):
        n += tensor.segments[i].n
    return n


# An entry of `parameters`: a key, and an InferParameter of which one field is set.

cdef size_t number_bytes(size_t key_bytes, uint64_t value) noexcept nogil:
    return proto_bytes_field_bytes(
        proto_bytes_field_bytes(key_bytes) + proto_bytes_field_bytes(1 + proto_varint_bytes(value)))


cdef char* put_number(char* p, const char* key, size_t key_bytes, uint64_t value) noexcept nogil:
    cdef size_t inner = 1 + proto_varint_bytes(value)
    p = proto_put_head(p, 4, proto_bytes_field_bytes(key_bytes) + proto_bytes_field_bytes(inner))
    p = proto_put_bytes(p, 1, key, key_bytes)
    p = proto_put_head(p, 2, inner)
    p[0] = 0x10    # int64_param
    return proto_put_varint(p + 1, value)


cdef size_t shared_bytes(const ReplyTensor* tensor) noexcept nogil:
    """The parameters of an output in shared memory."""
    cdef size_t n = proto_bytes_field_bytes(
        proto_bytes_field_bytes(REGION_BYTES)
        + proto_bytes_field_bytes(proto_bytes_field_bytes(tensor.shared.region.n)))
    if tensor.shared.offset:
        n += number_bytes(OFFSET_BYTES, tensor.shared.offset)
    return n + number_bytes(SIZE_BYTES, segment_bytes(tensor))


cdef char* put_shared(char* p, const ReplyTensor* tensor) noexcept nogil:
    cdef size_t inner = proto_bytes_field_bytes(tensor.shared.region.n)
    p = proto_put_head(p, 4, proto_bytes_field_bytes(REGION_BYTES) + proto_bytes_field_bytes(inner))
    p = proto_put_bytes(p, 1, b"shared_memory_region", REGION_BYTES)
    p = proto_put_head(p, 2, inner)
    p = proto_put_bytes(p, 3, tensor.shared.region.p, tensor.shared.region.n)
    if tensor.shared.offset:
        p = put_number(p, b"shared_memory_offset", OFFSET_BYTES, tensor.shared.offset)
    return put_number(p, b"shared_memory_byte_size", SIZE_BYTES, segment_bytes(tensor))


cdef size_t tensor_bytes(const ModelSpec* spec, const ReplyTensor* tensor) noexcept nogil:
    """An InferOutputTensor."""
    cdef size_t n = proto_bytes_field_bytes(spec.outputs[tensor.spec_index].name.n)
    n += proto_bytes_field_bytes(strlen(dtype_name(tensor.dtype)))
    if tensor.rank:
        n += proto_bytes_field_bytes(shape_bytes(tensor))
    if tensor.shared != NULL:
        n += shared_bytes(tensor)
    return n


cdef size_t contents_bytes(const ReplyTensor* tensor) noexcept nogil:
    """Of the entry in raw_output_contents, which an output in shared memory has too: clients count them."""
    return segment_bytes(tensor) if tensor.shared == NULL else 0


cdef char* put_tensor(char* p, const ModelSpec* spec, const ReplyTensor* tensor) noexcept nogil:
    cdef const TensorSpec* output = &spec.outputs[tensor.spec_index]
    cdef const char* datatype = dtype_name(tensor.dtype)
    cdef int i
    p = proto_put_bytes(p, 1, output.name.p, output.name.n)
    p = proto_put_bytes(p, 2, datatype, strlen(datatype))
    if tensor.rank:
        p = proto_put_head(p, 3, shape_bytes(tensor))
        for i in range(tensor.rank):
            p = proto_put_varint(p, <uint64_t>tensor.dims[i])
    if tensor.shared != NULL:
        p = put_shared(p, tensor)
    return p


cdef char* put_contents(char* p, const ReplyTensor* tensor) noexcept nogil:
    cdef int i
    p = proto_put_head(p, 6, contents_bytes(tensor))
    if tensor.shared != NULL:
        return p
    for i in range(tensor.n_segments):
        if tensor.segments[i].n:
            memcpy(p, tensor.segments[i].p, tensor.segments[i].n)
            p += tensor.segments[i].n
    return p


cdef size_t response_bytes(
    const ModelSpec* spec, const InferRequest* request, const ReplyTensor* tensors, int count
) noexcept nogil:
    cdef size_t n = proto_bytes_field_bytes(spec.name.n) + proto_bytes_field_bytes(spec.version.n)
    cdef int i
    if request.id.n:
        n += proto_bytes_field_bytes(request.id.n)
    for i in range(count):
        n += proto_bytes_field_bytes(tensor_bytes(spec, &tensors[i]))
        n += proto_bytes_field_bytes(contents_bytes(&tensors[i]))
    return n


cdef int infer_wire_reply(
    OutBuf* b, const ModelSpec* spec, const InferRequest* request, const ReplyTensor* tensors, int count, int stream
) noexcept nogil:
    cdef ClassReply classes
    cdef int status
    if not infer_classes_wanted(request):
        return write_reply(b, spec, request, tensors, count, stream)
    if infer_classes_begin(&classes, spec, request, tensors, count) < 0:
        return -1
    status = write_reply(b, spec, request, classes.tensors, count, stream)
    infer_classes_end(&classes)
    return status


cdef int write_reply(
    OutBuf* b, const ModelSpec* spec, const InferRequest* request, const ReplyTensor* tensors, int count, int stream
) noexcept nogil:
    cdef size_t n = response_bytes(spec, request, tensors, count) + (<size_t>FINAL_RESPONSE_BYTES if stream else 0)
    cdef char* p
    cdef int i
    if n > INT32_MAX - 16 or outbuf_reserve(b, n + 16) < 0:
        return -1
    p = b.data + b.len
    if stream:
        p = proto_put_head(p, 2, n)
    p = proto_put_bytes(p, 1, spec.name.p, spec.name.n)
    p = proto_put_bytes(p, 2, spec.version.p, spec.version.n)
    if request.id.n:
        p = proto_put_bytes(p, 3, request.id.p, request.id.n)
    if stream:
        memcpy(p, FINAL_RESPONSE, FINAL_RESPONSE_BYTES)
        p += FINAL_RESPONSE_BYTES
    for i in range(count):
        p = proto_put_head(p, 5, tensor_bytes(spec, &tensors[i]))
        p = put_tensor(p, spec, &tensors[i])
    for i in range(count):
        p = put_contents(p, &tensors[i])
    b.len = <size_t>(p - b.data)
    return 0


cdef int infer_wire_stream_error(OutBuf* b, Span text, Span id) noexcept nogil:
    cdef size_t inner = <size_t>FINAL_RESPONSE_BYTES
    cdef char* p
    if id.n:
        inner += proto_bytes_field_bytes(id.n)
    if outbuf_reserve(b, text.n + inner + 24) < 0:
        return -1
    p = proto_put_bytes(b.data + b.len, 1, text.p, text.n)
    p = proto_put_head(p, 2, inner)
    if id.n:
        p = proto_put_bytes(p, 3, id.p, id.n)
    memcpy(p, FINAL_RESPONSE, FINAL_RESPONSE_BYTES)
    b.len = <size_t>(p + FINAL_RESPONSE_BYTES - b.data)
    return 0


# ---- Python face

cdef class ReplyTensors:
    """Outputs of a reply, made from Python objects."""

    def __cinit__(self, Spec spec, list tensors):
        self._keep = tensors
        self.c = <ReplyTensor*>calloc(<size_t>len(tensors) + 1, sizeof(ReplyTensor))
        if self.c == NULL:
            raise MemoryError
        for spec_index, shape, segments in tensors:
            self.add(spec, spec_index, shape, segments)

    def __dealloc__(self):
        cdef int i
        for i in range(self.count):
            free(self.c[i].segments)
        free(self.c)

    cdef int add(self, Spec spec, int spec_index, shape, list segments) except -1:
        cdef ReplyTensor* tensor = &self.c[self.count]
        cdef bytes segment
        cdef int i
        if not 0 <= spec_index < spec.c.n_outputs:
            raise ValueError(f"expected an output of 0 to {spec.c.n_outputs - 1}, got {spec_index}")
        if len(shape) > INFER_MAX_RANK:
            raise ValueError(f"expected at most {INFER_MAX_RANK} dimensions, got {len(shape)}")
        tensor.segments = <Segment*>calloc(<size_t>len(segments) + 1, sizeof(Segment))
        if tensor.segments == NULL:
            raise MemoryError
        self.count += 1
        tensor.spec_index = spec_index
        tensor.dtype = spec.c.outputs[spec_index].dtype
        tensor.rank = len(shape)
        for i in range(tensor.rank):
            tensor.dims[i] = shape[i]
        for segment in segments:
            tensor.segments[tensor.n_segments].p = segment
            tensor.segments[tensor.n_segments].n = <size_t>len(segment)
            tensor.n_segments += 1
        return 0


def reply(Spec spec, bytes request_id, list tensors, bint stream=False):
    """See infer_wire_reply.pyi."""
    cdef ReplyTensors rows = ReplyTensors(spec, tensors)
    cdef OutBuf b
    cdef InferRequest request
    memset(&b, 0, sizeof(b))
    memset(&request, 0, sizeof(request))
    request.id.p = request_id
    request.id.n = <size_t>len(request_id)
    try:
        if infer_wire_reply(&b, spec.c, &request, rows.c, rows.count, stream) < 0:
            raise MemoryError
        return b.data[: b.len]
    finally:
        outbuf_free(&b)


def stream_error(bytes text, bytes request_id):
    """See infer_wire_reply.pyi."""
    cdef OutBuf b
    cdef Span message
    cdef Span id
    memset(&b, 0, sizeof(b))
    message.p = text
    message.n = <size_t>len(text)
    id.p = request_id
    id.n = <size_t>len(request_id)
    try:
        if infer_wire_stream_error(&b, message, id) < 0:
            raise MemoryError
        return b.data[: b.len]
    finally:
        outbuf_free(&b)
