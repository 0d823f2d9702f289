"""The best classes of an output as BYTES: order and text of scores from class_order.h, labels from the spec.

The contract is in infer_classes.pxd. Allocates for each reply that has classes, nothing for others; no state between
calls, any thread.
"""

from libc.stdint cimport INT64_MAX, int64_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from server._fast.infer_spec cimport (
    DTYPE_BYTES,
    INFER_INVALID_ARGUMENT,
    InferError,
    InferRequest,
    ModelSpec,
    OutputRef,
    ReplyTensor,
    Segment,
    Span,
    Spec,
    TensorSpec,
    dtype_name,
    dtype_width_bytes,
    infer_fail,
    infer_request_alloc,
    infer_request_free,
    raise_infer_error,
)
from server._fast.outbuf cimport OutBuf, outbuf_free, outbuf_reserve


cdef extern from "class_order.h" nogil:
    enum: CLASS_SCORE_MAX_BYTES
    void class_order_pick(const char* row, size_t count, size_t best, int dtype, size_t* order) noexcept
    char* class_order_score(char* dst, const char* row, size_t index, int dtype) noexcept
    int class_order_takes(int dtype) noexcept


cdef extern from "bytes_form.h" nogil:
    enum: BYTES_LENGTH_BYTES
    char* bytes_put_length(char* dst, size_t n) noexcept


cdef extern from "number_arrays.h" nogil:
    char* write_decimal "number_arrays::write_decimal"(char* dst, int64_t value) noexcept


cdef int infer_classes_ask(
    OutputRef* at, const TensorSpec* output, uint64_t class_count, InferError* err
) noexcept nogil:
    if class_count and not class_order_takes(output.dtype):
        return infer_fail(
            err, INFER_INVALID_ARGUMENT, b"class result not available for output due to unsupported type '%s'",
            dtype_name(output.dtype),
        )
    at.class_count = <int64_t>(class_count if class_count < <uint64_t>INT64_MAX else <uint64_t>INT64_MAX)
    return 0


cdef int put_class(OutBuf* b, const TensorSpec* output, const char* row, size_t index, int dtype) noexcept nogil:
    """One element: a length, then value:index or value:index:label."""
    cdef const Span* label = NULL
    cdef char* start
    cdef char* p
    if index < <size_t>output.label_count and output.labels[index].n:
        label = &output.labels[index]
    if outbuf_reserve(b, <size_t>CLASS_SCORE_MAX_BYTES + 32 + (label.n if label != NULL else 0)) < 0:
        return -1
    start = b.data + b.len
    p = class_order_score(start + BYTES_LENGTH_BYTES, row, index, dtype)
    p[0] = b":"
    p = write_decimal(p + 1, <int64_t>index)
    if label != NULL:
        p[0] = b":"
        memcpy(p + 1, label.p, label.n)
        p += 1 + label.n
    bytes_put_length(start, <size_t>(p - start) - BYTES_LENGTH_BYTES)
    b.len = <size_t>(p - b.data)
    return 0


cdef int put_rows(
    OutBuf* b, const TensorSpec* output, const ReplyTensor* tensor, size_t count, size_t best
) noexcept nogil:
    """The classes of every row of `count` values."""
    cdef size_t row_bytes = count * dtype_width_bytes(tensor.dtype)
    cdef size_t* order
    cdef size_t offset
    cdef size_t k
    cdef int i
    cdef int status = 0
    if best == 0:
        return 0
    order = <size_t*>malloc(count * sizeof(size_t))
    if order == NULL:
        return -1
    for i in range(tensor.n_segments):
        offset = 0
        while status == 0 and tensor.segments[i].n - offset >= row_bytes:
            class_order_pick(tensor.segments[i].p + offset, count, best, tensor.dtype, order)
            for k in range(best):
                status |= put_class(b, output, tensor.segments[i].p + offset, order[k], tensor.dtype)
            offset += row_bytes
    free(order)
    return status


cdef int classify(
    ClassReply* c, const ModelSpec* spec, ReplyTensor* tensor, int64_t class_count, Segment* made
) noexcept nogil:
    """Puts the classes of one tensor behind c.text and describes them; made.p is set when all are there."""
    cdef const TensorSpec* output = &spec.outputs[tensor.spec_index]
    cdef size_t values = 0
    cdef size_t rows = 1
    cdef size_t before = c.text.len
    cdef size_t best
    cdef int i
    for i in range(tensor.n_segments):
        values += tensor.segments[i].n // dtype_width_bytes(tensor.dtype)
    if spec.batched:
        rows = <size_t>tensor.dims[0]
        values = values // rows if rows else 0
    best = values if <uint64_t>class_count > values else <size_t>class_count
    if put_rows(&c.text, output, tensor, values, best) < 0:
        return -1
    tensor.dtype = DTYPE_BYTES
    tensor.rank = 0
    if spec.batched:
        tensor.dims[0] = <int64_t>rows
        tensor.rank = 1
    tensor.dims[tensor.rank] = <int64_t>best
    tensor.rank += 1
    made.n = c.text.len - before
    tensor.segments = made
    tensor.n_segments = 1
    return 0


cdef int infer_classes_begin(
    ClassReply* c, const ModelSpec* spec, const InferRequest* request, const ReplyTensor* tensors, int count
) noexcept nogil:
    cdef size_t offset = 0
    cdef int i
    memset(c, 0, sizeof(ClassReply))
    c.tensors = <ReplyTensor*>malloc(<size_t>(count + 1) * sizeof(ReplyTensor))
    c.segments = <Segment*>calloc(<size_t>count + 1, sizeof(Segment))
    if c.tensors == NULL or c.segments == NULL:
        infer_classes_end(c)
        return -1
    memcpy(c.tensors, tensors, <size_t>count * sizeof(ReplyTensor))
    for i in range(count):
        if request.outputs[i].class_count and (
            classify(c, spec, &c.tensors[i], request.outputs[i].class_count, &c.segments[i]) < 0
        ):
            infer_classes_end(c)
            return -1
    # The text has moved while it grew.
    for i in range(count):
        if request.outputs[i].class_count:
            c.segments[i].p = c.text.data + offset
            offset += c.segments[i].n
    return 0


cdef void infer_classes_end(ClassReply* c) noexcept nogil:
    free(c.tensors)
    free(c.segments)
    outbuf_free(&c.text)


# ---- Python face

def classes(Spec spec, int output, shape, list segments, uint64_t class_count):
    """See infer_classes.pyi."""
    cdef InferRequest request
    cdef InferError err
    cdef ClassReply c
    cdef ReplyTensor tensor
    cdef bytes segment
    cdef int i
    cdef Segment* rows = <Segment*>calloc(<size_t>len(segments) + 1, sizeof(Segment))
    memset(&tensor, 0, sizeof(tensor))
    if rows == NULL or infer_request_alloc(&request, spec.c) < 0:
        free(rows)
        raise MemoryError
    try:
        for i, segment in enumerate(segments):
            rows[i].p = segment
            rows[i].n = <size_t>len(segment)
        tensor.spec_index = output
        tensor.dtype = spec.c.outputs[output].dtype
        tensor.rank = len(shape)
        for i in range(tensor.rank):
            tensor.dims[i] = shape[i]
        tensor.segments = rows
        tensor.n_segments = len(segments)
        request.n_outputs = 1
        request.outputs[0].spec_index = output
        if infer_classes_ask(&request.outputs[0], &spec.c.outputs[output], class_count, &err) < 0:
            raise_infer_error(&err)
        if infer_classes_begin(&c, spec.c, &request, &tensor, 1) < 0:
            raise MemoryError
        made = [c.tensors[0].dims[i] for i in range(c.tensors[0].rank)], c.segments[0].p[: c.segments[0].n]
        infer_classes_end(&c)
        return made
    finally:
        free(rows)
        infer_request_free(&request)
