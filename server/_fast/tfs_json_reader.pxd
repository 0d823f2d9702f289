"""Leaves of the predict body's reader: one JSON value as a tensor, by shape and by element.

A TfsReader is one pass over one body; everything in it borrows. Functions return >= 0, or -1 with the error filled. A
list is only looked at (json_shape.h), its elements are read when the rows are there; a scalar is read at once. Any
thread, one per TfsReader; O(bytes of the value).
"""

from libc.stdint cimport int64_t

from server._fast.infer_json_fill cimport infer_json_fill_next
from server._fast.infer_json_reader cimport JsonScan, Reader, Text, json_scalar, json_text_is
from server._fast.infer_spec cimport (
    DTYPE_BOOL,
    DTYPE_BYTES,
    INFER_INTERNAL,
    INFER_MAX_RANK,
    INFER_RESOURCE_EXHAUSTED,
    InferError,
    InputRef,
    Span,
    TensorSpec,
    infer_fail,
)
from server._fast.outbuf cimport OutBuf, outbuf_reserve
from server._fast.tfs_json_explain cimport (
    FillCursor,
    TensorWalk,
    tfs_cursor_at,
    tfs_fail_parse,
    tfs_walk_begin,
    tfs_walk_instances,
    tfs_walk_value,
)


cdef extern from "json_shape.h" nogil:
    ctypedef struct JsonShape:
        Span text
        int rank
        int is_regular
        int64_t dims[100]

    int json_array_shape(JsonScan* s, JsonShape* out) noexcept


cdef enum:
    WIDEST_BYTES = 8    # of an element


# One pass over `instances` with objects, or the values of `inputs`.
cdef struct TfsReader:
    Reader r
    OutBuf* scratch
    int64_t instance_count


cdef inline int tfs_fail(TfsReader* t) noexcept nogil:
    return tfs_fail_parse(&t.r.scan, t.r.err)


cdef inline int find_input(TfsReader* t, const Text* key) noexcept nogil:
    cdef const TensorSpec* inputs = t.r.spec.inputs
    cdef int i
    for i in range(t.r.spec.n_inputs):
        if json_text_is(key.raw, key.escaped, inputs[i].name.p, inputs[i].name.n):
            return i
    return -1


cdef inline int is_strict(Span text, int dtype) noexcept nogil:
    """The rows' reader takes 0 and 1 for a bool; here only true and false are, which have no digits."""
    cdef size_t i
    if dtype == DTYPE_BOOL:
        for i in range(text.n):
            if text.p[i] >= b"0" and text.p[i] <= b"9":
                return 0
    return 1


cdef inline int read_scalar(JsonScan* s, int dtype, char* dst, InferError* err) noexcept nogil:
    """Reads the value at the cursor, which is no list, to dst; NULL: only moves behind it."""
    cdef FillCursor cursor
    cdef TensorWalk walk
    cdef JsonScan start = s[0]
    cdef Span text
    text.p = s.p
    if json_scalar(s) == 0 and text.p[0] != b"{":
        text.n = <size_t>(s.p - text.p)
        if dst == NULL:
            return 0
        tfs_cursor_at(&cursor, text.p, s.p, dtype)
        if is_strict(text, dtype) and infer_json_fill_next(&cursor, 1, dst, err) == 0:
            return 0
    tfs_walk_begin(&walk, dtype)
    if tfs_walk_value(&start, &walk, err) == 0:
        infer_fail(err, INFER_INTERNAL, b"a JSON value was read in two ways")
    return -1


cdef inline void set_list(InputRef* at, int i, const JsonShape* shape) noexcept nogil:
    cdef int axis
    at.spec_index = i
    at.rank = shape.rank
    at.json_data = shape.text
    at.is_binary = 0
    for axis in range(shape.rank if shape.rank < INFER_MAX_RANK else INFER_MAX_RANK):
        at.dims[axis] = shape.dims[axis]


cdef inline int fail_irregular(TfsReader* t, const JsonShape* shape, int dtype, int of_instances) noexcept nogil:
    """A list with lists of different lengths, or with values that its dtype does not have."""
    cdef JsonScan scan = t.r.scan
    cdef TensorWalk walk
    cdef int status
    scan.p = shape.text.p
    scan.end = scan.p + shape.text.n
    scan.depth = 0
    tfs_walk_begin(&walk, dtype)
    if of_instances:
        status = tfs_walk_instances(&scan, dtype, t.r.err)
    else:
        status = tfs_walk_value(&scan, &walk, t.r.err)
    return -1 if status < 0 else infer_fail(t.r.err, INFER_INTERNAL, b"a JSON list was read in two ways")


cdef inline int read_list(TfsReader* t, int i, int of_instances) noexcept nogil:
    """The list at the cursor is all of input i."""
    cdef JsonShape shape
    if json_array_shape(&t.r.scan, &shape) < 0:
        return tfs_fail(t)
    if not shape.is_regular or not is_strict(shape.text, t.r.spec.inputs[i].dtype):
        return fail_irregular(t, &shape, t.r.spec.inputs[i].dtype, of_instances)
    set_list(&t.r.request.inputs[i], i, &shape)
    return 0


cdef inline int reserve_scratch(TfsReader* t, size_t size_bytes) noexcept nogil:
    """Room behind what is in the scratch, which may move: 0, or -1 and a text."""
    cdef size_t at = t.scratch.len
    cdef size_t padded = (size_bytes + WIDEST_BYTES) // WIDEST_BYTES * WIDEST_BYTES
    if padded < size_bytes or outbuf_reserve(t.scratch, padded) < 0:
        return infer_fail(t.r.err, INFER_RESOURCE_EXHAUSTED, b"out of memory for %zu bytes of inputs", size_bytes)
    t.scratch.len = at + padded
    return 0


cdef inline int read_strings(TfsReader* t, int i, int of_instances) noexcept nogil:
    """The value at the cursor, whatever it is, is all of the BYTES input i. Measured first, then written.

    at.byte_count says where in the scratch it lies, at.bytes.n how much it is; see place_scratch.
    """
    cdef InputRef* at = &t.r.request.inputs[i]
    cdef JsonScan start = t.r.scan
    cdef JsonScan again = t.r.scan
    cdef TensorWalk walk
    cdef int axis
    tfs_walk_begin(&walk, DTYPE_BYTES)
    if tfs_walk_value(&t.r.scan, &walk, t.r.err) < 0:
        # The walk over single instances has the better text.
        if of_instances and tfs_walk_instances(&again, DTYPE_BYTES, t.r.err) == 0:
            return infer_fail(t.r.err, INFER_INTERNAL, b"a JSON list was read in two ways")
        return -1
    at.spec_index = i
    at.rank = walk.rank
    for axis in range(walk.rank):
        at.dims[axis] = walk.dims[axis]
    at.is_binary = 1
    at.byte_count = t.scratch.len
    at.bytes.n = <size_t>walk.string_bytes
    if reserve_scratch(t, at.bytes.n) < 0:
        return -1
    tfs_walk_begin(&walk, DTYPE_BYTES)
    walk.strings = t.scratch.data + at.byte_count
    return tfs_walk_value(&start, &walk, t.r.err)


cdef inline void place_scratch(TfsReader* t) noexcept nogil:
    """Nothing moves any more: the inputs that lie in the scratch learn where."""
    cdef InputRef* at
    cdef int i
    for i in range(t.r.spec.n_inputs):
        at = &t.r.request.inputs[i]
        if at.spec_index == i and at.is_binary:
            at.bytes.p = t.scratch.data + at.byte_count
