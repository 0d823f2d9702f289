"""KServe V2 infer reply: keys in Triton's order, numbers by std::to_chars (number_arrays.h), binary sections behind.

The contract is in infer_json_reply.pxd. Names are escaped once, when the Spec is made, so a reply copies them. Numbers
are written in runs of 256 elements, each run after one check of the room in the OutBuf; nothing else allocates. No
state between calls, any thread; O(elements).
"""

from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from server._fast.infer_classes cimport ClassReply, infer_classes_begin, infer_classes_end, infer_classes_wanted
from server._fast.infer_spec cimport (
    DTYPE_BYTES,
    INFER_OK,
    InferError,
    InferRequest,
    ModelSpec,
    ReplyTensor,
    Segment,
    Span,
    Spec,
    TensorSpec,
    dtype_name,
    dtype_width_bytes,
    raise_infer_error,
)
from server._fast.json_strings cimport fail_no_memory, next_element, write_string
from server._fast.outbuf cimport OutBuf, outbuf_free, outbuf_reserve, outbuf_write


cdef extern from "number_arrays.h" nogil:
    enum: NUMBER_TEXT_MAX_BYTES
    char* number_array_write(char* dst, const char* src, size_t count, int dtype) noexcept
    char* write_decimal "number_arrays::write_decimal"(char* dst, int64_t value) noexcept


cdef enum:
    ELEMENTS_AT_ONCE = 256


cdef inline char* put(char* dst, const char* text, size_t n) noexcept nogil:
    memcpy(dst, text, n)
    return dst + n


cdef int write_tensor_head(OutBuf* b, const TensorSpec* spec, const ReplyTensor* tensor) noexcept nogil:
    """{"name":"probabilities","datatype":"FP32","shape":[1,10]"""
    cdef const char* datatype = dtype_name(tensor.dtype)
    cdef int i
    cdef char* p
    if outbuf_reserve(b, spec.json_name.n + 64 + 21 * <size_t>tensor.rank) < 0:
        return -1
    p = put(b.data + b.len, b'{"name":', 8)
    p = put(p, spec.json_name.p, spec.json_name.n)
    p = put(p, b',"datatype":"', 13)
    while datatype[0] != 0:
        p[0] = datatype[0]
        p += 1
        datatype += 1
    p = put(p, b'","shape":[', 11)
    for i in range(tensor.rank):
        p = write_decimal(p, tensor.dims[i])
        p[0] = b","
        p += 1
    if tensor.rank:
        p -= 1
    p[0] = b"]"
    b.len = <size_t>(p + 1 - b.data)
    return 0


cdef int write_data(OutBuf* b, const ReplyTensor* tensor) noexcept nogil:
    ""","data":[0.5,1.0]}"""
    cdef size_t width = dtype_width_bytes(tensor.dtype)
    cdef size_t left
    cdef size_t count
    cdef const char* src
    cdef int i
    if outbuf_write(b, b',"data":[', 9) < 0:
        return -1
    for i in range(tensor.n_segments):
        src = tensor.segments[i].p
        left = tensor.segments[i].n // width
        while left:
            count = left if left < ELEMENTS_AT_ONCE else <size_t>ELEMENTS_AT_ONCE
            if outbuf_reserve(b, count * NUMBER_TEXT_MAX_BYTES) < 0:
                return -1
            b.len = <size_t>(number_array_write(b.data + b.len, src, count, tensor.dtype) - b.data)
            src += count * width
            left -= count
    if b.data[b.len - 1] == b",":
        b.len -= 1
    return outbuf_write(b, b"]}", 2)


cdef int write_strings(OutBuf* b, const ReplyTensor* tensor, Span output, InferError* err) noexcept nogil:
    """The same of BYTES."""
    cdef Span element
    cdef const char* p
    cdef const char* end
    cdef int64_t index = 0
    cdef int i
    if outbuf_write(b, b',"data":[', 9) < 0:
        return -1
    for i in range(tensor.n_segments):
        p = tensor.segments[i].p
        end = p + tensor.segments[i].n
        while p != end:
            if next_element(&p, end, &element, output, err) < 0:
                return -1
            if write_string(b, element, index, output, b"ask for the output as binary data", err) < 0:
                return -1
            index += 1
    if b.data[b.len - 1] == b",":
        b.len -= 1
    return outbuf_write(b, b"]}", 2)


cdef size_t tensor_byte_count(const ReplyTensor* tensor) noexcept nogil:
    cdef size_t n = 0
    cdef int i
    for i in range(tensor.n_segments):
        n += tensor.segments[i].n
    return n


cdef int write_binary_size(OutBuf* b, const ReplyTensor* tensor) noexcept nogil:
    cdef char* p
    if outbuf_reserve(b, 64) < 0:
        return -1
    p = put(b.data + b.len, b',"parameters":{"binary_data_size":', 34)
    p = write_decimal(p, <int64_t>tensor_byte_count(tensor))
    p = put(p, b"}}", 2)
    b.len = <size_t>(p - b.data)
    return 0


cdef int write_shared(OutBuf* b, const ReplyTensor* tensor) noexcept nogil:
    """Where the client finds the bytes."""
    cdef char* p
    if outbuf_reserve(b, tensor.shared.json_region.n + 160) < 0:
        return -1
    p = put(b.data + b.len, b',"parameters":{"shared_memory_region":', 38)
    p = put(p, tensor.shared.json_region.p, tensor.shared.json_region.n)
    if tensor.shared.offset:
        p = put(p, b',"shared_memory_offset":', 24)
        p = write_decimal(p, <int64_t>tensor.shared.offset)
    p = put(p, b',"shared_memory_byte_size":', 27)
    p = write_decimal(p, <int64_t>tensor_byte_count(tensor))
    p = put(p, b"}}", 2)
    b.len = <size_t>(p - b.data)
    return 0


cdef int write_json(
    OutBuf* b, const ModelSpec* spec, const InferRequest* request, const ReplyTensor* tensors, int count,
    InferError* err
) noexcept nogil:
    cdef const TensorSpec* output
    cdef int i
    cdef char* p
    if outbuf_reserve(b, request.id.n + spec.json_head.n + 16) < 0:
        return -1
    p = b.data + b.len
    p[0] = b"{"
    p += 1
    if request.id.n:
        p = put(p, b'"id":"', 6)
        p = put(p, request.id.p, request.id.n)
        p = put(p, b'",', 2)
    p = put(p, spec.json_head.p, spec.json_head.n)
    b.len = <size_t>(p - b.data)
    for i in range(count):
        if i and outbuf_write(b, b",", 1) < 0:
            return -1
        output = &spec.outputs[tensors[i].spec_index]
        if write_tensor_head(b, output, &tensors[i]) < 0:
            return -1
        if tensors[i].shared != NULL:
            if write_shared(b, &tensors[i]) < 0:
                return -1
        elif tensors[i].binary:
            if write_binary_size(b, &tensors[i]) < 0:
                return -1
        elif tensors[i].dtype == DTYPE_BYTES:
            if write_strings(b, &tensors[i], output.name, err) < 0:
                return -1
        elif write_data(b, &tensors[i]) < 0:
            return -1
    return outbuf_write(b, b"]}", 2)


cdef int write_sections(OutBuf* b, const ReplyTensor* tensors, int count) noexcept nogil:
    cdef int i
    cdef int k
    for i in range(count):
        if tensors[i].binary:
            for k in range(tensors[i].n_segments):
                if outbuf_write(b, tensors[i].segments[k].p, tensors[i].segments[k].n) < 0:
                    return -1
    return 0


cdef int write_reply(
    OutBuf* b,
    const ModelSpec* spec,
    const InferRequest* request,
    const ReplyTensor* tensors,
    int count,
    size_t* json_bytes,
    InferError* err,
) noexcept nogil:
    cdef size_t before = b.len
    err.code = INFER_OK
    if write_json(b, spec, request, tensors, count, err) == 0:
        json_bytes[0] = b.len - before
        if write_sections(b, tensors, count) == 0:
            return 0
    b.len = before
    return -1 if err.code != INFER_OK else fail_no_memory(err)


cdef int infer_json_reply(
    OutBuf* b,
    const ModelSpec* spec,
    const InferRequest* request,
    const ReplyTensor* tensors,
    int count,
    size_t* json_bytes,
    InferError* err,
) noexcept nogil:
    cdef ClassReply classes
    cdef int status
    if not infer_classes_wanted(request):
        return write_reply(b, spec, request, tensors, count, json_bytes, err)
    if infer_classes_begin(&classes, spec, request, tensors, count) < 0:
        return fail_no_memory(err)
    status = write_reply(b, spec, request, classes.tensors, count, json_bytes, err)
    infer_classes_end(&classes)
    return status


# ---- Python face

cdef int set_tensor(ReplyTensor* tensor, Spec spec, int spec_index, shape, bint binary, list segments) except -1:
    cdef int i
    cdef bytes segment
    if not 0 <= spec_index < spec.c.n_outputs:
        raise ValueError(f"expected an output of 0 to {spec.c.n_outputs - 1}, got {spec_index}")
    tensor.spec_index = spec_index
    tensor.dtype = spec.c.outputs[spec_index].dtype
    tensor.rank = len(shape)
    if tensor.rank > 8:
        raise ValueError(f"expected at most 8 dimensions, got {tensor.rank}")
    for i in range(tensor.rank):
        tensor.dims[i] = shape[i]
    tensor.binary = binary
    tensor.segments = <Segment*>calloc(<size_t>len(segments) + 1, sizeof(Segment))
    if tensor.segments == NULL:
        raise MemoryError
    for segment in segments:
        tensor.segments[tensor.n_segments].p = segment
        tensor.segments[tensor.n_segments].n = <size_t>len(segment)
        tensor.n_segments += 1
    return 0


def reply(Spec spec, bytes request_id, list tensors):
    """See infer_json_reply.pyi."""
    cdef OutBuf b
    cdef InferRequest request
    cdef InferError err
    cdef ReplyTensor* rows = <ReplyTensor*>calloc(<size_t>len(tensors) + 1, sizeof(ReplyTensor))
    cdef size_t json_bytes = 0
    cdef int count = 0
    memset(&b, 0, sizeof(b))
    memset(&request, 0, sizeof(request))
    if rows == NULL:
        raise MemoryError
    request.id.p = request_id
    request.id.n = <size_t>len(request_id)
    try:
        for spec_index, shape, binary, segments in tensors:
            count += 1
            set_tensor(&rows[count - 1], spec, spec_index, shape, binary, segments)
        if infer_json_reply(&b, spec.c, &request, rows, count, &json_bytes, &err) < 0:
            raise_infer_error(&err)
        return b.data[: b.len], json_bytes
    finally:
        for index in range(count):
            free(rows[index].segments)
        free(rows)
        outbuf_free(&b)
