"""Predict instances that are objects: values scattered over the body, gathered into one block per input.

The contract is in tfs_json_gather.pxd. Two passes: the first finds how many instances there are and that all have one
shape, the second fills the scratch, which is reserved once in between; it holds at most eight bytes per element of the
text, and what strings take in a slab. In both an InputRef keeps what the first instance was like, and in content_bytes
how much of the input has been passed. No state between calls, any thread; O(body bytes).
"""

from libc.stdint cimport int64_t

from server._fast.infer_json_fill cimport infer_json_fill
from server._fast.infer_json_reader cimport (
    JsonScan,
    Text,
    fail_named,
    json_enter,
    json_key,
    json_more,
    json_peek,
    json_skip,
    key_is,
)
from server._fast.infer_spec cimport (
    DTYPE_BYTES,
    INFER_INVALID_ARGUMENT,
    INFER_MAX_RANK,
    INFER_RESOURCE_EXHAUSTED,
    InputRef,
    Span,
    dtype_width_bytes,
    infer_fail,
)
from server._fast.name_list cimport NameList, name_list_add, name_list_text
from server._fast.outbuf cimport outbuf_reserve
from server._fast.tfs_json_explain cimport (
    QUOTE_BYTES,
    TensorWalk,
    tfs_fail_type,
    tfs_name_element,
    tfs_quote,
    tfs_same_shape,
    tfs_walk_begin,
    tfs_walk_value,
)
from server._fast.tfs_json_reader cimport (
    WIDEST_BYTES,
    JsonShape,
    TfsReader,
    fail_irregular,
    find_input,
    is_strict,
    json_array_shape,
    read_scalar,
    tfs_fail,
)


cdef int fail_rank(TfsReader* t) noexcept nogil:
    return infer_fail(
        t.r.err, INFER_INVALID_ARGUMENT, b"Encountered list at unexpected level: %d expected < %d",
        <int>INFER_MAX_RANK - 1, <int>INFER_MAX_RANK - 1
    )


cdef int read_instance_strings(TfsReader* t, char* dst, TensorWalk* found) noexcept nogil:
    """One instance's value for a BYTES input."""
    found.strings = dst
    if tfs_walk_value(&t.r.scan, found, t.r.err) < 0:
        return -1
    return fail_rank(t) if found.rank >= INFER_MAX_RANK else 0


cdef int read_instance_value(TfsReader* t, int i, char* dst, TensorWalk* found) noexcept nogil:
    """One instance's value for input i: its shape, and its elements at dst unless that is NULL."""
    cdef JsonShape shape
    cdef int axis
    cdef int dtype = t.r.spec.inputs[i].dtype
    cdef JsonScan start
    json_peek(&t.r.scan)
    start = t.r.scan
    tfs_walk_begin(found, dtype)
    if dtype == DTYPE_BYTES:
        return read_instance_strings(t, dst, found)
    found.rank = 0
    found.element_count = 1
    if start.p == start.end or start.p[0] != b"[":
        return read_scalar(&t.r.scan, dtype, dst, t.r.err)
    if json_array_shape(&t.r.scan, &shape) < 0:
        return tfs_fail(t)
    if not shape.is_regular or shape.rank >= INFER_MAX_RANK or not is_strict(shape.text, dtype):
        if shape.rank >= INFER_MAX_RANK:
            return fail_rank(t)
        return fail_irregular(t, &shape, dtype, 0)
    found.rank = shape.rank
    for axis in range(shape.rank):
        found.dims[axis] = shape.dims[axis]
        found.element_count *= shape.dims[axis]
    if dst != NULL and infer_json_fill(shape.text, dtype, found.element_count, dst, t.r.err) < 0:
        tfs_walk_value(&start, found, t.r.err)
        return -1
    return 0


cdef int note_shape(TfsReader* t, int i, const TensorWalk* found) noexcept nogil:
    """The first instance says which shape an input's values have; its dims are kept behind the batch axis."""
    cdef InputRef* at = &t.r.request.inputs[i]
    cdef TensorWalk first
    cdef int axis
    if t.instance_count == 0:
        at.spec_index = i
        at.rank = found.rank + 1
        at.element_count = found.element_count
        for axis in range(found.rank):
            at.dims[axis + 1] = found.dims[axis]
        return 0
    first.rank = at.rank - 1
    first.element_count = at.element_count
    for axis in range(first.rank):
        first.dims[axis] = at.dims[axis + 1]
    return tfs_same_shape(&first, found, t.r.err)


cdef int fail_keys(TfsReader* t, const JsonScan* start) noexcept nogil:
    """The instance at `start` has not exactly the model's inputs as keys."""
    cdef char names[160]
    cdef char quoted[QUOTE_BYTES]
    cdef NameList wanted
    cdef int i
    wanted.count = 0
    for i in range(t.r.spec.n_inputs):
        name_list_add(&wanted, t.r.spec.inputs[i].name)
    name_list_text(&wanted, names, sizeof(names))
    tfs_quote(start, start.p, quoted)
    return infer_fail(
        t.r.err, INFER_INVALID_ARGUMENT,
        b"Failed to process element: %lld of 'instances' list. JSON object: %s must only have keys: %s",
        <long long>t.instance_count, quoted, names
    )


cdef int read_instance_member(TfsReader* t, const JsonScan* start, int is_filling) noexcept nogil:
    """1 for the name of an input and its value, 0 when it was a key that no input has."""
    cdef Text key
    cdef TensorWalk found
    cdef InputRef* at
    cdef Span name
    cdef char* dst = NULL
    cdef int i
    if json_key(&t.r.scan, &key.raw, &key.escaped) < 0:
        return tfs_fail(t)
    i = find_input(t, &key)
    if i < 0:
        if key_is(&key, b"b64", 3) and json_peek(&t.r.scan) == b'"':
            tfs_fail_type(start, start.p, t.r.spec.inputs[0].dtype, t.r.err)
            tfs_name_element(t.instance_count, NULL, 0, t.r.err)
            return -1
        return fail_keys(t, start)
    at = &t.r.request.inputs[i]
    name = t.r.spec.inputs[i].name
    if is_filling:
        dst = <char*>at.bytes.p + at.content_bytes
    elif at.bytes.n == <size_t>t.instance_count + 1:
        return fail_named(
            &t.r, INFER_INVALID_ARGUMENT, b"JSON Parse error: the key '%.*s' stands twice in one object", &key
        )
    else:
        at.bytes.n = <size_t>t.instance_count + 1
    if read_instance_value(t, i, dst, &found) < 0 or (not is_filling and note_shape(t, i, &found) < 0):
        tfs_name_element(t.instance_count, name.p, name.n, t.r.err)
        return -1
    at.content_bytes += <size_t>found.string_bytes if found.dtype == DTYPE_BYTES else at.byte_count
    return 0


cdef int read_instances(TfsReader* t, int is_filling) noexcept nogil:
    """All objects of the array whose first element is at the cursor; counts them."""
    cdef JsonScan start
    cdef int entered
    cdef int key_count
    t.instance_count = 0
    while True:
        if json_peek(&t.r.scan) != b"{":
            start = t.r.scan
            if json_skip(&start) < 0:
                t.r.scan = start
                return tfs_fail(t)
            return infer_fail(
                t.r.err, INFER_INVALID_ARGUMENT, b"Expecting object but got list at item %lld of input list",
                <long long>t.instance_count
            )
        start = t.r.scan
        key_count = 0
        entered = json_enter(&t.r.scan, b"{")
        while entered > 0:
            if read_instance_member(t, &start, is_filling) < 0:
                return -1
            key_count += 1
            entered = json_more(&t.r.scan, b"{")
        if entered < 0:
            return tfs_fail(t)
        if key_count != t.r.spec.n_inputs:
            return fail_keys(t, &start)
        t.instance_count += 1
        entered = json_more(&t.r.scan, b"[")
        if entered < 0:
            return tfs_fail(t)
        if entered == 0:
            return 0


cdef int tfs_gather(TfsReader* t) noexcept nogil:
    cdef JsonScan start = t.r.scan
    cdef InputRef* at
    cdef size_t offset = 0
    cdef size_t total = 0
    cdef int64_t instance_count
    cdef int i
    if read_instances(t, 0) < 0:
        return -1
    instance_count = t.instance_count
    for i in range(t.r.spec.n_inputs):
        at = &t.r.request.inputs[i]
        at.byte_count = <size_t>at.element_count * dtype_width_bytes(t.r.spec.inputs[i].dtype)
        at.bytes.n = <size_t>instance_count * at.byte_count
        if t.r.spec.inputs[i].dtype == DTYPE_BYTES:
            at.bytes.n = at.content_bytes
        total += at.bytes.n + WIDEST_BYTES
        at.content_bytes = 0
    t.scratch.len = 0
    if outbuf_reserve(t.scratch, total) < 0:
        return infer_fail(t.r.err, INFER_RESOURCE_EXHAUSTED, b"out of memory for %zu bytes of instances", total)
    for i in range(t.r.spec.n_inputs):
        at = &t.r.request.inputs[i]
        at.dims[0] = instance_count
        at.is_binary = 1
        at.bytes.p = t.scratch.data + offset
        offset += (at.bytes.n + WIDEST_BYTES - 1) // WIDEST_BYTES * WIDEST_BYTES
    t.scratch.len = offset
    t.r.scan = start
    return read_instances(t, 1)
