"""TensorFlow Serving's predict reply: nested lists by a counter per tensor instead of recursion.

The contract is in tfs_json_reply.pxd. The numbers are number_arrays.h's, written in runs of at most 256 elements after
one check of the room in the OutBuf. A tensor's elements are read through a cursor over its segments, so that rows can
be written one at a time. A tensor with an empty axis is written as lists that end above it. No state between calls,
any thread; O(elements).
"""

from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from server._fast.infer_spec cimport (
    DTYPE_BYTES,
    INFER_INVALID_ARGUMENT,
    INFER_MAX_RANK,
    INFER_OK,
    InferError,
    ModelSpec,
    ReplyTensor,
    Segment,
    Span,
    Spec,
    dtype_width_bytes,
    infer_fail,
    raise_infer_error,
)
from server._fast.json_strings cimport fail_no_memory, next_element, write_string
from server._fast.outbuf cimport OutBuf, outbuf_free, outbuf_reserve, outbuf_write
from server._fast.tfs_json_explain cimport TFS_COLUMN, TFS_ROW, TFS_ROW_SINGLE, tfs_clip


cdef extern from "number_arrays.h" nogil:
    enum: NUMBER_TEXT_MAX_BYTES
    char* number_array_write(char* dst, const char* src, size_t count, int dtype) noexcept


cdef extern from "base64_text.h" nogil:
    size_t base64_bytes(size_t n) noexcept
    char* base64_put(char* dst, const char* p, size_t n) noexcept


cdef enum:
    ELEMENTS_AT_ONCE = 256
    #: Outputs written row by row whose places are kept on the stack.
    KEPT_PLACES = 32


# The next element of a tensor, and what is said when it cannot be written.
cdef struct Place:
    int segment
    size_t offset_bytes
    int64_t index          # BYTES: of the element
    Span name              # of the output
    InferError* err


cdef inline void begin(Place* at, const ModelSpec* spec, const ReplyTensor* tensor, InferError* err) noexcept nogil:
    memset(at, 0, sizeof(Place))
    at.name = spec.outputs[tensor.spec_index].name
    at.err = err


cdef inline bint is_base64(Span name) noexcept nogil:
    """Whether an output's strings are wrapped as {"b64": ...}: TensorFlow Serving goes by the name alone."""
    return name.n >= 6 and memcmp(name.p + name.n - 6, b"_bytes", 6) == 0


cdef int write_base64(OutBuf* b, Span element) noexcept nogil:
    """{"b64":"..."} and a comma."""
    cdef char* p
    if outbuf_reserve(b, base64_bytes(element.n) + 12) < 0:
        return -1
    memcpy(b.data + b.len, b'{"b64":"', 8)
    p = base64_put(b.data + b.len + 8, element.p, element.n)
    memcpy(p, b'"},', 3)
    b.len = <size_t>(p + 3 - b.data)
    return 0


cdef int write_strings(OutBuf* b, const ReplyTensor* tensor, Place* at, int64_t count) noexcept nogil:
    """`count` BYTES elements, each followed by a comma."""
    cdef const Segment* segment
    cdef Span element
    cdef const char* p
    while count > 0:
        if at.segment == tensor.n_segments:
            return -1
        segment = &tensor.segments[at.segment]
        if at.offset_bytes == segment.n:
            at.segment += 1
            at.offset_bytes = 0
            continue
        p = segment.p + at.offset_bytes
        if next_element(&p, segment.p + segment.n, &element, at.name, at.err) < 0:
            return -1
        at.offset_bytes = <size_t>(p - segment.p)
        if is_base64(at.name):
            if write_base64(b, element) < 0:
                return -1
        elif write_string(
            b, element, at.index, at.name, b"only outputs whose names end in _bytes are sent as base64", at.err
        ) < 0:
            return -1
        at.index += 1
        count -= 1
    return 0


cdef int write_run(OutBuf* b, const ReplyTensor* tensor, Place* at, int64_t count) noexcept nogil:
    """`count` elements, each followed by a comma."""
    cdef size_t width = dtype_width_bytes(tensor.dtype)
    cdef const Segment* segment
    cdef size_t take
    if width == 0:
        return write_strings(b, tensor, at, count)
    while count > 0:
        if at.segment == tensor.n_segments:
            return -1
        segment = &tensor.segments[at.segment]
        take = (segment.n - at.offset_bytes) // width
        if take == 0:
            at.segment += 1
            at.offset_bytes = 0
            continue
        if take > <size_t>count:
            take = <size_t>count
        if take > ELEMENTS_AT_ONCE:
            take = ELEMENTS_AT_ONCE
        if outbuf_reserve(b, take * NUMBER_TEXT_MAX_BYTES) < 0:
            return -1
        b.len = <size_t>(
            number_array_write(b.data + b.len, segment.p + at.offset_bytes, take, tensor.dtype) - b.data
        )
        at.offset_bytes += take * width
        count -= <int64_t>take
    return 0


cdef int write_value(OutBuf* b, const ReplyTensor* tensor, int first_axis, Place* at) noexcept nogil:
    """One value over the axes from first_axis on, followed by a comma."""
    cdef int64_t index[8]
    cdef int last = first_axis    # the deepest axis that has lists
    cdef int level
    cdef int64_t inner
    if first_axis >= tensor.rank:
        return write_run(b, tensor, at, 1)
    while last < tensor.rank - 1 and tensor.dims[last] > 0:
        last += 1
    inner = tensor.dims[last]
    level = first_axis
    while True:
        # Opens the lists down to the innermost one, writes that, and closes all that are full.
        if outbuf_reserve(b, 2 * INFER_MAX_RANK + 2) < 0:
            return -1
        while level <= last:
            b.data[b.len] = b"["
            b.len += 1
            index[level] = 0
            level += 1
        if write_run(b, tensor, at, inner) < 0 or outbuf_reserve(b, 2 * INFER_MAX_RANK + 2) < 0:
            return -1
        level = last
        while True:
            if b.data[b.len - 1] == b",":
                b.len -= 1
            b.data[b.len] = b"]"
            b.data[b.len + 1] = b","
            b.len += 2
            if level == first_axis:
                return 0
            level -= 1
            index[level] += 1
            if index[level] < tensor.dims[level]:
                level += 1
                break


cdef int put(OutBuf* b, const char* text, size_t n) noexcept nogil:
    return outbuf_write(b, text, n)


cdef int close(OutBuf* b, const char* text, size_t n) noexcept nogil:
    """Replaces the comma behind the last value."""
    b.len -= 1
    return outbuf_write(b, text, n)


cdef int write_name(OutBuf* b, Span json_name) noexcept nogil:
    return -1 if outbuf_write(b, json_name.p, json_name.n) < 0 or outbuf_write(b, b":", 1) < 0 else 0


cdef int write_whole(
    OutBuf* b, const ModelSpec* spec, const ReplyTensor* tensors, int count, InferError* err
) noexcept nogil:
    """All outputs, each as it is, followed by a comma."""
    cdef Place at
    cdef int i
    if count > 1 and put(b, b"{", 1) < 0:
        return -1
    for i in range(count):
        begin(&at, spec, &tensors[i], err)
        if count > 1 and write_name(b, spec.outputs[tensors[i].spec_index].json_name) < 0:
            return -1
        if write_value(b, &tensors[i], 0, &at) < 0:
            return -1
    return close(b, b"},", 2) if count > 1 else 0


cdef int write_objects(
    OutBuf* b, const ModelSpec* spec, const ReplyTensor* tensors, int count, Place* places
) noexcept nogil:
    """An object per row, as members of one list, followed by a comma."""
    cdef int64_t _row
    cdef int i
    if put(b, b"[", 1) < 0:
        return -1
    for _row in range(tensors[0].dims[0]):
        if put(b, b"{", 1) < 0:
            return -1
        for i in range(count):
            if write_name(b, spec.outputs[tensors[i].spec_index].json_name) < 0:
                return -1
            if write_value(b, &tensors[i], 1, &places[i]) < 0:
                return -1
        if close(b, b"},", 2) < 0:
            return -1
    return close(b, b"],", 2)


cdef int write_rows(
    OutBuf* b, const ModelSpec* spec, const ReplyTensor* tensors, int count, InferError* err
) noexcept nogil:
    cdef Place kept[KEPT_PLACES]
    cdef Place* places = kept
    cdef int i
    cdef int status
    if count > KEPT_PLACES:
        places = <Place*>malloc(<size_t>count * sizeof(Place))
        if places == NULL:
            return -1
    for i in range(count):
        begin(&places[i], spec, &tensors[i], err)
    status = write_objects(b, spec, tensors, count, places)
    if places != kept:
        free(places)
    return status


cdef int check_rows(const ModelSpec* spec, const ReplyTensor* tensors, int count, InferError* err) noexcept nogil:
    cdef Span name
    cdef int i
    for i in range(count):
        name = spec.outputs[tensors[i].spec_index].name
        if tensors[i].rank == 0:
            return infer_fail(
                err, INFER_INVALID_ARGUMENT, b"Tensor name: %.*s has no shape information ", tfs_clip(name.n), name.p
            )
        if tensors[i].dims[0] < 1:
            return infer_fail(
                err, INFER_INVALID_ARGUMENT, b"Tensor name: %.*s has invalid batch size: %lld",
                tfs_clip(name.n), name.p, <long long>tensors[i].dims[0]
            )
        if tensors[i].dims[0] != tensors[0].dims[0]:
            return infer_fail(
                err, INFER_INVALID_ARGUMENT, b"Tensor name: %.*s has inconsistent batch size: %lld expecting: %lld",
                tfs_clip(name.n), name.p, <long long>tensors[i].dims[0], <long long>tensors[0].dims[0]
            )
    return 0


cdef int check(const ModelSpec* spec, const ReplyTensor* tensors, int count, int form, InferError* err) noexcept nogil:
    if count == 0:
        return infer_fail(err, INFER_INVALID_ARGUMENT, b"Cannot convert empty tensor map to JSON")
    return check_rows(spec, tensors, count, err) if form == TFS_ROW else 0


cdef int write(
    OutBuf* b, const ModelSpec* spec, const ReplyTensor* tensors, int count, int form, InferError* err
) noexcept nogil:
    if form == TFS_COLUMN:
        if put(b, b'{"outputs":', 11) < 0 or write_whole(b, spec, tensors, count, err) < 0:
            return -1
        return close(b, b"}", 1)
    if put(b, b'{"predictions":', 15) < 0:
        return -1
    if form == TFS_ROW_SINGLE:
        if put(b, b"[", 1) < 0 or write_whole(b, spec, tensors, count, err) < 0:
            return -1
        return close(b, b"]}", 2)
    # One output's rows are the lists of its first axis.
    if (write_whole(b, spec, tensors, 1, err) if count == 1 else write_rows(b, spec, tensors, count, err)) < 0:
        return -1
    return close(b, b"}", 1)


cdef int tfs_json_reply(
    OutBuf* b, const ModelSpec* spec, const ReplyTensor* tensors, int count, int form, InferError* err
) noexcept nogil:
    cdef size_t before = b.len
    if check(spec, tensors, count, form, err) < 0:
        return -1
    err.code = INFER_OK
    if write(b, spec, tensors, count, form, err) == 0:
        return 0
    b.len = before
    return -1 if err.code != INFER_OK else fail_no_memory(err)


# ---- Python face

cdef int set_tensor(ReplyTensor* tensor, Spec spec, int spec_index, shape, list segments) except -1:
    cdef int i
    cdef bytes segment
    cdef size_t total = 0
    if not 0 <= spec_index < spec.c.n_outputs:
        raise ValueError(f"expected an output of 0 to {spec.c.n_outputs - 1}, got {spec_index}")
    tensor.spec_index = spec_index
    tensor.dtype = spec.c.outputs[spec_index].dtype
    tensor.rank = len(shape)
    if tensor.rank > INFER_MAX_RANK:
        raise ValueError(f"expected at most {INFER_MAX_RANK} dimensions, got {tensor.rank}")
    elements = 1
    for i in range(tensor.rank):
        tensor.dims[i] = shape[i]
        elements *= shape[i]
    tensor.segments = <Segment*>calloc(<size_t>len(segments) + 1, sizeof(Segment))
    if tensor.segments == NULL:
        raise MemoryError
    for segment in segments:
        tensor.segments[tensor.n_segments].p = segment
        tensor.segments[tensor.n_segments].n = <size_t>len(segment)
        tensor.n_segments += 1
        total += <size_t>len(segment)
    if tensor.dtype != DTYPE_BYTES and total != elements * dtype_width_bytes(tensor.dtype):
        raise ValueError(f"expected {elements * dtype_width_bytes(tensor.dtype)} bytes for {list(shape)}, got {total}")
    return 0


def reply(Spec spec, str form, list tensors):
    """See tfs_json_reply.pyi."""
    cdef OutBuf b
    cdef InferError err
    cdef int code = {"row": TFS_ROW, "row_single": TFS_ROW_SINGLE, "column": TFS_COLUMN}[form]
    cdef ReplyTensor* rows = <ReplyTensor*>calloc(<size_t>len(tensors) + 1, sizeof(ReplyTensor))
    cdef int count = 0
    memset(&b, 0, sizeof(b))
    if rows == NULL:
        raise MemoryError
    try:
        for spec_index, shape, segments in tensors:
            count += 1
            set_tensor(&rows[count - 1], spec, spec_index, shape, segments)
        if tfs_json_reply(&b, spec.c, rows, count, code, &err) < 0:
            raise_infer_error(&err)
        return b.data[: b.len]
    finally:
        for index in range(count):
            free(rows[index].segments)
        free(rows)
        outbuf_free(&b)
