"""The way out of an inference request: its outputs as they lie in the slabs, or the text of its failure.

It knows rows, tensors and the three modes of an arena; it does not know protocols: segments of memory are what it gives
to them. They are good until the rows are released. The pool belongs to the caller and grows to the longest reply. One
thread per owner id. O(outputs * parts), in shaped mode O(outputs * rows).
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport realloc

from server._fast.atomics cimport word_load
from server._fast.infer_claim cimport Part, row_data
from server._fast.infer_spec cimport (
    INFER_DEADLINE,
    INFER_INTERNAL,
    INFER_INVALID_ARGUMENT,
    INFER_NO_MEMORY,
    INFER_UNAVAILABLE,
    InferError,
    InferRequest,
    ModelSpec,
    ReplyTensor,
    Segment,
    infer_fail,
)
from server._fast.layout cimport (
    FAILURE_TEXT_BYTES,
    MODE_ROWS,
    MODE_SHAPED,
    ArenaView,
    RowFailure,
    TensorLayout,
    TensorShape,
    output_shape,
)
from server._fast.slab_ring cimport (
    FAILURE_DEADLINE,
    FAILURE_MEMORY,
    FAILURE_MODEL,
    FAILURE_UNAVAILABLE,
    ROW_FAILED,
    Claim,
    row_at,
    row_code,
    row_index,
    row_state,
)


cdef int infer_outputs_check(ArenaView* v, const ModelSpec* model, const InferRequest* request, const Part* parts,
                             uint32_t part_count, InferError* err) noexcept nogil:
    """Rows of one request may have run in different batches. Nearly always they gave equal shapes all the same."""
    cdef TensorShape* first
    cdef TensorShape* other
    cdef uint32_t p, row, axis
    cdef int o
    for o in range(model.n_outputs):
        first = output_shape(v, parts[0].claim.slab, parts[0].claim.first_row, o)
        if first.whole and part_count > 1:
            return infer_fail(
                err, INFER_INVALID_ARGUMENT,
                "output '%.*s' of model '%.*s' does not follow the batch axis, and the %lld rows of this request do "
                "not fit into one batch: send at most %u rows at a time",
                <int>model.outputs[o].name.n, model.outputs[o].name.p, <int>model.name.n, model.name.p,
                <long long>request.rows, parts[0].claim.row_count)
        if first.whole:
            continue
        for p in range(part_count):
            for row in range(parts[p].claim.first_row, parts[p].claim.first_row + parts[p].claim.row_count):
                other = output_shape(v, parts[p].claim.slab, row, o)
                if other.rank == first.rank and not other.whole:
                    axis = 1
                    while axis < first.rank and other.dims[axis] == first.dims[axis]:
                        axis += 1
                    if axis >= first.rank:
                        continue
                return infer_fail(
                    err, INFER_INVALID_ARGUMENT,
                    "the rows of this request gave outputs '%.*s' of different shapes: send each row in a request of "
                    "its own", <int>model.outputs[o].name.n, model.outputs[o].name.p)
    return 0


cdef int infer_outputs(ArenaView* v, const ModelSpec* model, const InferRequest* request, const Part* parts,
                       uint32_t part_count, ReplyTensor* replies, SegmentPool* pool) noexcept nogil:
    # Rows of a shaped slab need not lie side by side.
    cdef uint64_t per_output = part_count if v.mode != MODE_SHAPED else <uint64_t>request.rows
    cdef uint64_t need = request.n_outputs * per_output + pieces_needed(v, model, request, parts)
    cdef Segment* segments
    cdef int o, axis, index
    cdef uint32_t p
    cdef ReplyTensor* reply
    cdef TensorLayout* tensor
    cdef TensorShape* shape
    cdef const Claim* claim
    if need > pool.capacity:
        segments = <Segment*>realloc(pool.segments, need * sizeof(Segment))
        if segments == NULL:
            return -1
        pool.segments = segments
        pool.capacity = need
    segments = pool.segments
    for o in range(request.n_outputs):
        reply = &replies[o]
        index = request.outputs[o].spec_index
        reply.spec_index = index
        reply.dtype = model.outputs[index].dtype
        reply.binary = request.outputs[o].binary
        reply.shared = request.outputs[o].shared
        reply.segments = segments
        reply.n_segments = part_count
        if v.mode == MODE_ROWS:
            tensor = &v.tensors[v.header.input_count + index]
            reply.rank = tensor.rank
            reply.dims[0] = request.rows
            for axis in range(1, <int>tensor.rank):
                reply.dims[axis] = tensor.dims[axis]
            for p in range(part_count):
                claim = &parts[p].claim
                segments.p = row_data(v, tensor, claim)
                segments.n = claim.row_count * tensor.row_bytes
                segments += 1
            continue
        claim = &parts[0].claim
        shape = output_shape(v, claim.slab, claim.first_row if v.mode == MODE_SHAPED else 0, index)
        reply.rank = shape.rank
        for axis in range(<int>shape.rank):
            reply.dims[axis] = shape.dims[axis]
        if model.outputs[index].batch_axis > 0:
            reply.n_segments = pieces_segments(v, model, request, parts, part_count, index, reply, segments)
        elif v.mode == MODE_SHAPED and not shape.whole:
            reply.dims[0] = request.rows
            reply.n_segments = shaped_segments(v, parts, part_count, index, segments)
        else:
            segments.p = v.data + claim.slab * v.data_stride + shape.offset
            segments.n = shape.bytes
        segments += reply.n_segments
    return 0


cdef int64_t piece_count(const TensorShape* shape, int batch_axis) noexcept nogil:
    """In how many pieces a row is sent whose batch axis is not the first. shape: with the batch axis in front."""
    cdef int64_t count = 1
    cdef int axis
    for axis in range(1, min(batch_axis, <int>shape.rank - 1) + 1):
        count *= shape.dims[axis]
    return count


cdef uint64_t pieces_needed(ArenaView* v, const ModelSpec* model, const InferRequest* request,
                            const Part* parts) noexcept nogil:
    """Segments for the outputs whose batch axis is not the first."""
    cdef uint64_t need = 0
    cdef TensorShape* shape
    cdef int o, index
    for o in range(request.n_outputs):
        index = request.outputs[o].spec_index
        if model.outputs[index].batch_axis > 0:
            shape = output_shape(v, parts[0].claim.slab, parts[0].claim.first_row, index)
            need += <uint64_t>(piece_count(shape, model.outputs[index].batch_axis) * (
                shape.dims[0] if shape.whole else request.rows))
    return need


cdef int pieces_segments(ArenaView* v, const ModelSpec* model, const InferRequest* request, const Part* parts,
                         uint32_t part_count, int output, ReplyTensor* reply, Segment* segments) noexcept nogil:
    """Shaped mode, batch axis not the first: of each row one piece for each index before the axis. How many."""
    cdef TensorShape* shape = output_shape(v, parts[0].claim.slab, parts[0].claim.first_row, output)
    cdef int axis, count = 0, batch_axis = max(min(model.outputs[output].batch_axis, <int>shape.rank - 1), 0)
    cdef int64_t piece, row, rows = shape.dims[0] if shape.whole else request.rows
    cdef int64_t pieces = piece_count(shape, batch_axis)
    cdef uint64_t row_bytes = shape.bytes // <uint64_t>max(rows, 1) if shape.whole else shape.bytes
    cdef uint64_t piece_bytes = row_bytes // <uint64_t>max(pieces, 1)
    cdef uint32_t p
    cdef const char* at
    for axis in range(batch_axis):
        reply.dims[axis] = shape.dims[axis + 1]
    reply.dims[batch_axis] = rows
    if piece_bytes == 0:
        return 0
    for piece in range(pieces):
        if shape.whole:
            at = v.data + parts[0].claim.slab * v.data_stride + shape.offset
            for row in range(rows):
                segments[count].p = at + <uint64_t>row * row_bytes + <uint64_t>piece * piece_bytes
                segments[count].n = piece_bytes
                count += 1
            continue
        for p in range(part_count):
            for row in range(parts[p].claim.first_row, parts[p].claim.first_row + parts[p].claim.row_count):
                shape = output_shape(v, parts[p].claim.slab, <uint32_t>row, output)
                segments[count].p = v.data + parts[p].claim.slab * v.data_stride + shape.offset + (
                    <uint64_t>piece * piece_bytes)
                segments[count].n = piece_bytes
                count += 1
    return count


cdef int shaped_segments(ArenaView* v, const Part* parts, uint32_t part_count, int output,
                         Segment* segments) noexcept nogil:
    """One segment for rows that lie side by side: how many."""
    cdef uint32_t p, row
    cdef int count = 0
    cdef TensorShape* shape
    cdef const char* at
    for p in range(part_count):
        for row in range(parts[p].claim.first_row, parts[p].claim.first_row + parts[p].claim.row_count):
            shape = output_shape(v, parts[p].claim.slab, row, output)
            at = v.data + parts[p].claim.slab * v.data_stride + shape.offset
            if count and segments[count - 1].p + segments[count - 1].n == at:
                segments[count - 1].n += shape.bytes
                continue
            segments[count].p = at
            segments[count].n = shape.bytes
            count += 1
    return count


cdef int told_as(uint32_t code) noexcept nogil:
    """The InferError code of a row that failed with a text."""
    if code == FAILURE_MODEL:
        return INFER_INVALID_ARGUMENT
    return INFER_NO_MEMORY if code == FAILURE_MEMORY else INFER_INTERNAL


cdef void infer_failure(ArenaView* v, const ModelSpec* model, const Part* part, uint64_t failed_word,
                        InferError* err) noexcept nogil:
    cdef uint32_t code = row_code(failed_word)
    cdef RowFailure* failure
    cdef uint32_t row
    cdef uint64_t word
    if code == FAILURE_DEADLINE:
        infer_fail(err, INFER_DEADLINE, "Request timeout expired: it waited past its deadline")
        return
    if code == FAILURE_UNAVAILABLE:
        infer_fail(err, INFER_UNAVAILABLE,
                   "model '%.*s' became unavailable while the request waited: it cannot be loaded again, or not soon",
                   <int>model.name.n, model.name.p)
        return
    for row in range(part.claim.first_row, part.claim.first_row + part.claim.row_count):
        failure = &v.failures[row_index(v, part.claim.slab, row)]
        word = word_load(row_at(v, part.claim.slab, row))
        # A text outlives its row when nobody fetched it: only a row that failed has one of this call.
        if failure.code == code and row_state(word) == ROW_FAILED:
            infer_fail(err, told_as(code), "%.*s",
                       <int>min(failure.bytes, <uint32_t>FAILURE_TEXT_BYTES), failure.text)
            failure.code = 0
            return
    infer_fail(err, INFER_INTERNAL, "the model failed without a reason")
