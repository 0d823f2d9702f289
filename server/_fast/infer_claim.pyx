"""The way in of an inference request: rows claimed in the slabs of its lane, its inputs written into them.

It knows rows, tensors and the three modes of an arena; it does not know sockets, text formats or who waits for the
answer. The parts belong to the caller, who cancels them when something here refuses the request. One thread per owner
id. O(rows + bytes); a request of more than one part costs one malloc.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport malloc
from libc.string cimport memcpy, memset

from server._fast.atomics cimport relaxed_load, relaxed_load_half
from server._fast.clock cimport now_ns
from server._fast.infer_spec cimport (
    INFER_INTERNAL,
    INFER_INVALID_ARGUMENT,
    INFER_RESOURCE_EXHAUSTED,
    INFER_UNAVAILABLE,
    InferError,
    InferRequest,
    InputRef,
    ModelSpec,
    Span,
    infer_error_name_input,
    infer_fail,
)
from server._fast.input_filler cimport InputFiller, filler_begin, filler_end, filler_next
from server._fast.layout cimport (
    MAX_PADS,
    MAX_RANK,
    MODE_ROWS,
    MODE_SHAPED,
    MODE_SINGLE,
    ArenaView,
    PadRule,
    TensorLayout,
    TensorShape,
    input_shape,
    row_extents,
)
from server._fast.quarantine cimport quarantine_has, row_digest
from server._fast.queue_levels cimport level_is_full, level_of
from server._fast.row_padding cimport padding_round, padding_spread, padding_value
from server._fast.row_shapes cimport RowShapes, shaped_row, shapes_measure
from server._fast.slab_reserve cimport ring_open_reserved
from server._fast.slab_ring cimport Claim, ring_claim

#: fill_*: the data itself cannot be read; the text does not name the input yet.
cdef int FILL_UNREADABLE = -2


cdef int fail_room(ArenaView* v, const ModelSpec* model, InferError* err) noexcept nogil:
    return infer_fail(
        err, INFER_RESOURCE_EXHAUSTED,
        "the inputs take more than the %llu bytes that a request to model '%.*s' may have",
        <unsigned long long>v.header.input_bytes, <int>model.name.n, model.name.p)


cdef int fail_full(const ModelSpec* model, InferError* err) noexcept nogil:
    return infer_fail(
        err, INFER_UNAVAILABLE,
        "Exceeds maximum queue size: the queue of model '%.*s' is full, try again later",
        <int>model.name.n, model.name.p)


cdef int measure(ArenaView* v, const ModelSpec* model, const InferRequest* request, int64_t* row_dims,
                 RowShapes* out, int64_t* extents, InferError* err) noexcept nogil:
    """Shaped mode: what the request's rows look like, padding included; extents: how long they came."""
    cdef const InputRef* given
    cdef int i, axis
    cdef int64_t* dims
    for i in range(model.n_inputs):
        given = &request.inputs[i]
        dims = row_dims + i * MAX_RANK + 1
        if v.tensors[i].is_value:
            if read_value(given, model.inputs[i].name, dims, err) < 0:
                return -1
            continue
        for axis in range(given.rank):
            if axis != model.inputs[i].batch_axis:
                dims[0] = given.dims[axis]
                dims += 1
    if v.padding != NULL:
        i = padding_round(v, row_dims, extents)
        if i >= 0:
            return fail_group(v, model, request, i, extents, err)
    if not shapes_measure(v, row_dims, out):
        return fail_room(v, model, err)
    if v.padding != NULL:
        out.spare_elements = relaxed_load(&v.padding.overhead_elements) // <uint64_t>request.rows
    return 0


cdef int read_value(const InputRef* given, Span name, int64_t* words, InferError* err) noexcept nogil:
    """An input that all rows of a batch share: its bytes, where other inputs have dims."""
    cdef InputFiller filler
    if given.byte_count > (MAX_RANK - 1) * sizeof(int64_t):
        return infer_fail(err, INFER_INTERNAL, "input '%.*s' is too large for a value", <int>name.n, name.p)
    memset(words, 0, (MAX_RANK - 1) * sizeof(int64_t))
    filler_begin(&filler, given)
    if filler_next(&filler, given.element_count, given.byte_count, <char*>words, err) < 0 or (
        filler_end(&filler, err) < 0
    ):
        infer_error_name_input(err, name)
        return -1
    return 0


cdef int fail_group(ArenaView* v, const ModelSpec* model, const InferRequest* request, int index,
                    const int64_t* extents, InferError* err) noexcept nogil:
    cdef const PadRule* rule = &v.padding.rules[index]
    cdef const PadRule* first = rule
    while first > v.padding.rules and (first - 1).group == rule.group:
        first -= 1
    return infer_fail(
        err, INFER_INVALID_ARGUMENT,
        "input '%.*s' of model '%.*s' has length %lld on axis %u, input '%.*s' has length %lld on axis %u: expected "
        "equal lengths",
        <int>model.inputs[rule.tensor].name.n, model.inputs[rule.tensor].name.p, <int>model.name.n, model.name.p,
        <long long>request.inputs[rule.tensor].dims[rule.axis], rule.axis,
        <int>model.inputs[first.tensor].name.n, model.inputs[first.tensor].name.p,
        <long long>extents[rule.group], first.axis)


cdef void note_extents(ArenaView* v, const Claim* claim, const int64_t* extents) noexcept nogil:
    """What is to be cut off the rows' outputs, for the executor."""
    cdef uint32_t row
    for row in range(claim.first_row, claim.first_row + claim.row_count):
        memcpy(row_extents(v, claim.slab, row), extents, v.padding.group_count * sizeof(int64_t))


cdef int infer_claim(ArenaView* v, const ModelSpec* model, const InferRequest* request, uint32_t owner, uint64_t at_ns,
                     int64_t* row_dims, PartList* out, InferError* err) noexcept nogil:
    cdef uint64_t rows = request.rows, capacity = v.row_capacity
    cdef uint32_t part_count, take, level = level_of(v, request.priority), slab_count = v.levels[level].slab_count
    cdef RowShapes shapes
    cdef int64_t extents[MAX_PADS]
    cdef RowShapes* wanted = NULL
    out.parts = out.one
    out.part_count = 0
    if v.mode == MODE_SINGLE:
        rows = 1
    elif v.mode == MODE_SHAPED:
        if measure(v, model, request, row_dims, &shapes, extents, err) < 0:
            return -1
        wanted = &shapes
        capacity = shapes.capacity
    if rows > capacity * slab_count:
        return infer_fail(
            err, INFER_INVALID_ARGUMENT,
            "inference request batch-size must be <= %llu for '%.*s': it has %llu rows, send fewer at a time",
            <unsigned long long>(capacity * slab_count), <int>model.name.n, model.name.p,
            <unsigned long long>rows)
    if level_is_full(v, level):
        return fail_full(model, err)
    part_count = <uint32_t>((rows + capacity - 1) // capacity)
    if part_count > 1:
        out.parts = <Part*>malloc(part_count * sizeof(Part))
        if out.parts == NULL:
            out.parts = out.one
            return infer_fail(err, INFER_UNAVAILABLE, "out of memory for a request of %u parts", part_count)
    while rows > 0:
        take = <uint32_t>(rows if rows < capacity else capacity)
        if ring_claim(v, owner, level, take, wanted, at_ns, &out.parts[out.part_count].claim) < 0:
            return fail_full(model, err)
        if v.padding != NULL:
            note_extents(v, &out.parts[out.part_count].claim, extents)
        out.part_count += 1
        rows -= take
    return 0


cdef int infer_claim_reserved(ArenaView* v, const ModelSpec* model, uint32_t owner, uint64_t at_ns,
                              const Claim* reserved, PartList* out, InferError* err) noexcept nogil:
    out.parts = out.one
    out.part_count = 0
    if level_is_full(v, 0):
        return fail_full(model, err)
    out.part_count = 1
    out.one.claim = reserved[0]
    ring_open_reserved(v, owner, at_ns, reserved)
    if relaxed_load_half(&v.lane.quarantined):
        return check_quarantine(v, out.parts, 1, err)
    return 0


cdef int infer_fill(ArenaView* v, const ModelSpec* model, const InferRequest* request, const Part* parts,
                    uint32_t part_count, InferError* err) noexcept nogil:
    cdef int i, code
    cdef InputFiller filler
    cdef uint64_t offset = 0
    for i in range(model.n_inputs):
        if v.tensors[i].is_value:
            continue
        filler_begin(&filler, &request.inputs[i])
        if v.mode == MODE_ROWS:
            code = fill_rows(v, model, i, parts, part_count, &filler, err)
        elif v.mode == MODE_SHAPED:
            if model.inputs[i].batch_axis == 0:
                code = fill_shaped(v, request, i, parts, part_count, &filler, err)
            else:
                code = fill_across(v, model, i, parts, part_count, &filler, err)
        else:
            code = fill_single(v, model, i, &parts[0].claim, &filler, &offset, err)
        if code == FILL_UNREADABLE or (code == 0 and filler_end(&filler, err) < 0):
            infer_error_name_input(err, model.inputs[i].name)
            return -1
        if code < 0:
            return -1
    if relaxed_load_half(&v.lane.quarantined):
        return check_quarantine(v, parts, part_count, err)
    return 0


cdef int fill_rows(ArenaView* v, const ModelSpec* model, int i, const Part* parts, uint32_t part_count,
                   InputFiller* filler, InferError* err) noexcept nogil:
    """Rows mode: input i into the rows of every part."""
    cdef TensorLayout* tensor = &v.tensors[i]
    cdef const Claim* claim
    cdef int64_t elements
    cdef char* data
    cdef uint32_t p
    for p in range(part_count):
        claim = &parts[p].claim
        elements = claim.row_count * model.inputs[i].row_elements
        data = row_data(v, tensor, claim)
        if filler_next(filler, elements, claim.row_count * tensor.row_bytes, data, err) < 0:
            return FILL_UNREADABLE
    return 0


cdef int fill_shaped(ArenaView* v, const InferRequest* request, int i, const Part* parts, uint32_t part_count,
                     InputFiller* filler, InferError* err) noexcept nogil:
    """Shaped mode: input i into the rows of every part, where the slab's opener said that they lie."""
    cdef const Claim* claim
    cdef int64_t row_elements = filler.source.element_count // request.rows
    cdef uint64_t row_bytes = row_elements * v.tensors[i].item_bytes
    cdef TensorShape* shape
    cdef char* data
    cdef uint32_t p
    for p in range(part_count):
        claim = &parts[p].claim
        shape = input_shape(v, claim.slab, i)
        data = shaped_row(v, claim.slab, i, claim.first_row)
        if filler_next(filler, claim.row_count * row_elements, claim.row_count * row_bytes, data, err) < 0:
            return FILL_UNREADABLE
        if row_bytes != shape.bytes:
            padding_spread(data, v.tensors[i].item_bytes, claim.row_count, shape.rank, filler.source.dims, shape.dims,
                           padding_value(v, i))
    return 0


cdef int fill_across(ArenaView* v, const ModelSpec* model, int i, const Part* parts, uint32_t part_count,
                     InputFiller* filler, InferError* err) noexcept nogil:
    """Shaped mode, batch axis not the first: a row's elements come in pieces, one for each index before the axis."""
    cdef const InputRef* source = filler.source
    cdef const Claim* claim
    cdef int64_t piece_count = 1, elements = 1, piece
    cdef uint64_t piece_bytes
    cdef uint32_t p, row
    cdef int axis
    for axis in range(source.rank):
        if axis < model.inputs[i].batch_axis:
            piece_count *= source.dims[axis]
        elif axis > model.inputs[i].batch_axis:
            elements *= source.dims[axis]
    piece_bytes = <uint64_t>elements * v.tensors[i].item_bytes
    if source.element_count == 0:
        return 0
    for piece in range(piece_count):
        for p in range(part_count):
            claim = &parts[p].claim
            for row in range(claim.first_row, claim.first_row + claim.row_count):
                if filler_next(filler, elements, piece_bytes,
                               shaped_row(v, claim.slab, i, row) + <uint64_t>piece * piece_bytes, err) < 0:
                    return FILL_UNREADABLE
    return 0


cdef int fill_single(ArenaView* v, const ModelSpec* model, int i, const Claim* claim, InputFiller* filler,
                     uint64_t* offset, InferError* err) noexcept nogil:
    """Single mode: input i behind the inputs before it, with its shape."""
    cdef const InputRef* source = filler.source
    cdef TensorShape* shape = input_shape(v, claim.slab, i)
    cdef uint64_t n = source.byte_count
    cdef char* data
    cdef int axis
    if n > v.header.input_bytes or offset[0] > v.header.input_bytes - n:
        return fail_room(v, model, err)
    shape.offset = offset[0]
    shape.bytes = n
    shape.rank = source.rank
    for axis in range(source.rank):
        shape.dims[axis] = source.dims[axis]
    data = v.data + claim.slab * v.data_stride + offset[0]
    if filler_next(filler, source.element_count, n, data, err) < 0:
        return FILL_UNREADABLE
    offset[0] = (offset[0] + n + 63) // 64 * 64
    return 0


cdef int check_quarantine(ArenaView* v, const Part* parts, uint32_t part_count, InferError* err) noexcept nogil:
    cdef uint32_t p, row
    cdef uint64_t now = now_ns()
    cdef const Claim* claim
    for p in range(part_count):
        claim = &parts[p].claim
        for row in range(claim.first_row, claim.first_row + claim.row_count):
            if quarantine_has(v, row_digest(v, claim.slab, row), now):
                return infer_fail(err, INFER_INTERNAL,
                                  "this input ended the executor process twice; it is refused for ten minutes")
    return 0
