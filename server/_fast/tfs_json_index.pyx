"""TensorFlow Serving's predict body: its members, the row and the column form, and the Python face.

The contract is in tfs_json_index.pxd; one value is read in tfs_json_reader, instances that are objects in
tfs_json_gather, the texts of refusals come from tfs_json_explain. Functions return >= 0, or -1 with the error filled
in. Nothing below the Python face touches an object; memory is the caller's. Any thread; O(body bytes).
"""

from libc.string cimport memset

from server._fast.infer_json_reader cimport (
    JsonScan,
    Keys,
    Text,
    fail_named,
    json_enter,
    json_key,
    json_more,
    json_peek,
    json_skip,
    json_start,
    json_string,
    key_is,
    note_known,
    note_unknown,
)
from server._fast.infer_spec cimport (
    DTYPE_BYTES,
    INFER_INVALID_ARGUMENT,
    InferError,
    InferRequest,
    InputRef,
    ModelSpec,
    Span,
    Spec,
    dtype_name,
    dtype_width_bytes,
    infer_fail,
    infer_request_alloc,
    infer_request_free,
    infer_request_reset,
    infer_validate,
    raise_infer_error,
)
from server._fast.outbuf cimport OutBuf, outbuf_free
from server._fast.tfs_json_explain cimport (
    TFS_COLUMN,
    TFS_ROW,
    TFS_ROW_SINGLE,
    tfs_clip,
    tfs_fail_type,
    tfs_fail_value,
    tfs_json_explain,
)
from server._fast.tfs_json_gather cimport tfs_gather
from server._fast.tfs_json_reader cimport (
    TfsReader,
    find_input,
    place_scratch,
    read_list,
    read_scalar,
    read_strings,
    reserve_scratch,
    tfs_fail,
)
from server._fast.tfs_path cimport tfs_name_is, tfs_predict_path
from server._fast.tfs_strings cimport is_b64


cdef enum:
    HAS_SIGNATURE = 1
    HAS_INSTANCES = 2
    HAS_INPUTS = 4


# ---- the two forms

cdef bint takes_strings(const TfsReader* t) noexcept nogil:
    """Whether {"b64": ...} is a value where otherwise inputs have names."""
    cdef int i
    for i in range(t.r.spec.n_inputs):
        if t.r.spec.inputs[i].dtype == DTYPE_BYTES:
            return True
    return False


cdef int read_rows(TfsReader* t) noexcept nogil:
    """The value of `instances`."""
    cdef JsonScan* s = &t.r.scan
    cdef JsonScan inside
    cdef int entered
    if json_peek(s) != b"[":
        if json_skip(s) < 0:
            return tfs_fail(t)
        s.p = s.begin
        return fail_document(t, b"Excepting 'instances' to be an list/array")
    inside = s[0]
    entered = json_enter(&inside, b"[")
    if entered < 0:
        s[0] = inside
        return tfs_fail(t)
    if entered == 0:
        return fail_document(t, b"No values in 'instances' array")
    if json_peek(&inside) == b"{" and not (takes_strings(t) and is_b64(&inside)):
        s[0] = inside
        return tfs_gather(t)
    if t.r.spec.n_inputs > 1:
        return infer_fail(
            t.r.err, INFER_INVALID_ARGUMENT,
            b"instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            b"tensorinfo_map",
        )
    if t.r.spec.inputs[0].dtype == DTYPE_BYTES:
        if read_strings(t, 0, 1) < 0:
            return -1
        place_scratch(t)
        return 0
    return read_list(t, 0, 1)


cdef int read_column(TfsReader* t, int i) noexcept nogil:
    """The whole of input i, at the cursor."""
    cdef InputRef* at = &t.r.request.inputs[i]
    cdef int dtype = t.r.spec.inputs[i].dtype
    if dtype == DTYPE_BYTES:
        json_peek(&t.r.scan)
        return read_strings(t, i, 0)
    if json_peek(&t.r.scan) == b"[":
        return read_list(t, i, 0)
    at.spec_index = i
    at.rank = 0
    at.is_binary = 1
    at.byte_count = t.scratch.len
    at.bytes.n = dtype_width_bytes(dtype)
    if reserve_scratch(t, at.bytes.n) < 0:
        return -1
    return read_scalar(&t.r.scan, dtype, t.scratch.data + at.byte_count, t.r.err)


cdef int read_columns(TfsReader* t) noexcept nogil:
    """The value of `inputs`."""
    cdef JsonScan start
    cdef Keys keys
    cdef Text key
    cdef int i
    cdef int entered
    cdef Span name
    if json_peek(&t.r.scan) != b"{" or (takes_strings(t) and is_b64(&t.r.scan)):
        if t.r.spec.n_inputs > 1:
            return infer_fail(
                t.r.err, INFER_INVALID_ARGUMENT,
                b"inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                b"tensorinfo_map",
            )
        return read_column(t, 0)
    start = t.r.scan
    keys.known = 0
    keys.unknown_count = 0
    entered = json_enter(&t.r.scan, b"{")
    while entered > 0:
        if json_key(&t.r.scan, &key.raw, &key.escaped) < 0:
            return tfs_fail(t)
        i = find_input(t, &key)
        if i < 0:
            if key_is(&key, b"b64", 3) and json_peek(&t.r.scan) == b'"' and t.r.spec.n_inputs == 1:
                return tfs_fail_type(&start, start.p, t.r.spec.inputs[0].dtype, t.r.err)
            if note_unknown(&t.r, &keys, &key) < 0:
                return -1
            if json_skip(&t.r.scan) < 0:
                return tfs_fail(t)
        elif t.r.request.inputs[i].spec_index >= 0:
            return fail_named(
                &t.r, INFER_INVALID_ARGUMENT, b"JSON Parse error: the key '%.*s' stands twice in one object", &key
            )
        elif read_column(t, i) < 0:
            return -1
        entered = json_more(&t.r.scan, b"{")
    if entered < 0:
        return tfs_fail(t)
    for i in range(t.r.spec.n_inputs):
        if t.r.request.inputs[i].spec_index < 0:
            name = t.r.spec.inputs[i].name
            return infer_fail(
                t.r.err, INFER_INVALID_ARGUMENT, b"Missing named input: %.*s in 'inputs' object.",
                tfs_clip(name.n), name.p
            )
    return 0


# ---- models without batch axis

cdef int has_shapes(const InferRequest* request, const ModelSpec* spec, int skipped) noexcept nogil:
    """Whether all inputs, their first `skipped` axes apart, have the model's shapes."""
    cdef const InputRef* at
    cdef int i
    cdef int axis
    for i in range(spec.n_inputs):
        at = &request.inputs[i]
        if at.rank - skipped != spec.inputs[i].rank:
            return 0
        for axis in range(spec.inputs[i].rank):
            if spec.inputs[i].dims[axis] >= 0 and spec.inputs[i].dims[axis] != at.dims[axis + skipped]:
                return 0
    return 1


cdef int unstack(InferRequest* request, const ModelSpec* spec, InferError* err) noexcept nogil:
    """`instances` for a model without batch axis: they stack to its shape, or there is one and it has that shape."""
    cdef InputRef* at
    cdef int i
    cdef int axis
    if has_shapes(request, spec, 0) or not has_shapes(request, spec, 1):
        return TFS_ROW
    if request.inputs[0].dims[0] != 1:
        return infer_fail(
            err, INFER_INVALID_ARGUMENT,
            b"model '%.*s' has no batch axis: expected 1 element in 'instances', got %lld; send them one at a time",
            tfs_clip(spec.name.n), spec.name.p, <long long>request.inputs[0].dims[0]
        )
    for i in range(spec.n_inputs):
        at = &request.inputs[i]
        at.rank -= 1
        for axis in range(at.rank):
            at.dims[axis] = at.dims[axis + 1]
    return TFS_ROW_SINGLE


# ---- the body

cdef int fail_document(TfsReader* t, const char* what) noexcept nogil:
    """The body as a whole is at fault."""
    cdef JsonScan scan = t.r.scan
    scan.p = scan.begin
    scan.depth = 0
    json_peek(&scan)
    return tfs_fail_value(&scan, scan.p, what, t.r.err)


cdef int read_signature(TfsReader* t) noexcept nogil:
    cdef Text text
    if json_peek(&t.r.scan) != b'"':
        return fail_document(t, b"not formatted correctly. 'signature_name' key must be a string value.")
    if json_string(&t.r.scan, &text.raw, &text.escaped) < 0:
        return tfs_fail(t)
    if text.raw.n == 0 or key_is(&text, b"serving_default", 15):
        return 0
    return fail_named(&t.r, INFER_INVALID_ARGUMENT, b'Serving signature name: "%.*s" not found in signature def', &text)


cdef int fail_both(TfsReader* t) noexcept nogil:
    return fail_document(
        t, b"Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
    )


cdef int read_member(TfsReader* t, Keys* keys, const Text* key) noexcept nogil:
    if key_is(key, b"instances", 9):
        if note_known(&t.r, keys, HAS_INSTANCES, key) < 0:
            return -1
        if keys.known & HAS_INPUTS:
            return fail_both(t)
        return read_rows(t)
    if key_is(key, b"inputs", 6):
        if note_known(&t.r, keys, HAS_INPUTS, key) < 0:
            return -1
        if keys.known & HAS_INSTANCES:
            return fail_both(t)
        if read_columns(t) < 0:
            return -1
        place_scratch(t)
        return 0
    if key_is(key, b"signature_name", 14):
        if note_known(&t.r, keys, HAS_SIGNATURE, key) < 0:
            return -1
        return read_signature(t)
    if note_unknown(&t.r, keys, key) < 0:
        return -1
    return 0 if json_skip(&t.r.scan) == 0 else tfs_fail(t)


cdef int read_body(TfsReader* t) noexcept nogil:
    """The form, or -1; what stands behind the object is not looked at."""
    cdef Keys keys
    cdef Text key
    cdef int entered
    keys.known = 0
    keys.unknown_count = 0
    if json_peek(&t.r.scan) != b"{":
        if t.r.scan.p == t.r.scan.end:
            return infer_fail(
                t.r.err, INFER_INVALID_ARGUMENT, b"JSON Parse error: The document is empty at offset: %zu",
                <size_t>(t.r.scan.p - t.r.scan.begin)
            )
        if json_skip(&t.r.scan) < 0:
            return tfs_fail(t)
        return fail_document(t, b"Is not object")
    entered = json_enter(&t.r.scan, b"{")
    while entered > 0:
        if json_key(&t.r.scan, &key.raw, &key.escaped) < 0:
            return tfs_fail(t)
        if read_member(t, &keys, &key) < 0:
            return -1
        entered = json_more(&t.r.scan, b"{")
    if entered < 0:
        return tfs_fail(t)
    if keys.known & HAS_INPUTS:
        return TFS_COLUMN
    if not keys.known & HAS_INSTANCES:
        return infer_fail(t.r.err, INFER_INVALID_ARGUMENT, b"Missing 'inputs' or 'instances' key")
    return TFS_ROW if t.r.spec.batched else unstack(t.r.request, t.r.spec, t.r.err)


cdef int tfs_json_index(
    const char* buf, size_t n, const ModelSpec* spec, OutBuf* scratch, InferRequest* out, InferError* err
) noexcept nogil:
    cdef TfsReader t
    cdef int form
    cdef int i
    t.r.spec = spec
    t.r.request = out
    t.r.err = err
    t.scratch = scratch
    t.instance_count = 0
    scratch.len = 0
    infer_request_reset(out, spec)
    for i in range(spec.n_inputs):
        memset(&out.inputs[i], 0, sizeof(InputRef))
        out.inputs[i].spec_index = -1
        out.inputs[i].dtype = spec.inputs[i].dtype
    if n == 0:
        return infer_fail(err, INFER_INVALID_ARGUMENT, b"JSON Parse error: The document is empty")
    if spec.n_inputs == 0:
        return infer_fail(err, INFER_INVALID_ARGUMENT, b"Failed to get input map for signature: DEFAULT")
    json_start(&t.r.scan, buf, n)
    form = read_body(&t)
    if form < 0:
        return -1
    out.n_inputs = spec.n_inputs
    return form if infer_validate(out, spec, err) == 0 else -1


# ---- Python face

cdef object span_or_none(Span span, const char* base):
    return (span.p - base, <Py_ssize_t>span.n)


cdef dict as_dict(const InferRequest* r, int form, const char* base):
    cdef int i
    cdef int k
    cdef const InputRef* at
    inputs = []
    for i in range(r.n_inputs):
        at = &r.inputs[i]
        inputs.append({
            "datatype": dtype_name(at.dtype).decode(),
            "shape": [at.dims[k] for k in range(at.rank)],
            "element_count": at.element_count,
            "byte_count": at.byte_count,
            "json_data": None if at.is_binary else span_or_none(at.json_data, base),
            "bytes": at.bytes.p[: at.bytes.n] if at.is_binary else None,
        })
    name = {TFS_ROW: "row", TFS_ROW_SINGLE: "row_single"}.get(form, "column")
    return {"form": name, "rows": r.rows, "inputs": inputs}


cdef object run(const unsigned char[::1] body, Spec spec, bint explaining):
    cdef InferRequest request
    cdef InferError err
    cdef OutBuf scratch
    cdef const char* base = <const char*>&body[0]
    cdef size_t n = <size_t>body.shape[0]
    cdef int form
    memset(&scratch, 0, sizeof(scratch))
    if infer_request_alloc(&request, spec.c) < 0:
        raise MemoryError
    try:
        with nogil:
            form = tfs_json_index(base, n, spec.c, &scratch, &request, &err)
        if form < 0:
            raise_infer_error(&err)
        if not explaining:
            return as_dict(&request, form, base)
        infer_fail(&err, INFER_INVALID_ARGUMENT, b"%s", b"")
        with nogil:
            tfs_json_explain(base, spec.c, &request, form, &err)
        return (<bytes>err.text[: err.n]).decode("utf-8", "replace")
    finally:
        infer_request_free(&request)
        outbuf_free(&scratch)


def index(const unsigned char[::1] body, Spec spec):
    """See tfs_json_index.pyi."""
    return run(body, spec, False)


def explain(const unsigned char[::1] body, Spec spec):
    """See tfs_json_index.pyi."""
    return run(body, spec, True)


def predict_path(bytes path):
    """See tfs_json_index.pyi."""
    cdef Span name
    cdef Span version
    cdef Span label
    if tfs_predict_path(path, <size_t>len(path), &name, &version, &label) < 0:
        return None
    return name.p[: name.n], version.p[: version.n] if version.n else b"", label.p[: label.n] if label.n else b""


def path_name_is(bytes raw, bytes plain):
    """See tfs_json_index.pyi."""
    cdef Span given
    cdef Span wanted
    given.p = raw
    given.n = <size_t>len(raw)
    wanted.p = plain
    wanted.n = <size_t>len(plain)
    return tfs_name_is(given, wanted)
