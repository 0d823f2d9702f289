"""KServe V2 infer request (JSON part): members, their order-free resolution against a model, and the Python face.

The C face and its contract are in infer_json_index.pxd, the leaves (scanner, keys, scalars, texts) in
infer_json_reader.pxd, parameters in infer_json_parameters.pxd. Here stands what each member means. Functions return 0
(or 1 for "one more member"), or -1 with the error filled in; nothing below the Python face touches an object. Memory:
the caller's InferRequest and this pass's stack (three key tables of 1 KiB). One pass, O(body bytes); any thread.
"""

from libc.stdint cimport INT64_MAX, int64_t, uint64_t

from server._fast.infer_classes cimport infer_classes_ask
from server._fast.infer_json_parameters cimport TensorParameters, read_request_parameters, read_tensor_parameters
from server._fast.infer_json_reader cimport (
    Keys,
    Reader,
    Text,
    enter,
    fail_json,
    fail_named,
    fail_unexpected,
    fail_value,
    json_array_extent,
    json_enter,
    json_peek,
    json_skip,
    json_start,
    json_text_is,
    json_word,
    key_is,
    more,
    next_key,
    note_known,
    read_count,
    read_text,
    skip_unknown,
)
from server._fast.infer_shared_parameters cimport SHARED_REGION, shared_from_json
from server._fast.infer_spec cimport (
    DTYPE_BYTES,
    INFER_INVALID_ARGUMENT,
    INFER_MAX_RANK,
    WIRE_SOURCE_SHARED,
    InferError,
    InferRequest,
    InputRef,
    ModelSpec,
    SharedRef,
    Span,
    Spec,
    TensorSpec,
    dtype_from_name,
    dtype_name,
    infer_error_name_input,
    infer_fail,
    infer_request_alloc,
    infer_request_free,
    infer_request_reset,
    infer_validate,
    raise_infer_error,
)
from server._fast.infer_strings cimport infer_strings_measure
from server._fast.tensor_bytes cimport (
    tensor_bytes_begin,
    tensor_bytes_check,
    tensor_bytes_end,
    tensor_bytes_raw,
    tensor_bytes_take,
)


# ---- inputs

cdef enum:
    HAS_NAME = 1
    HAS_SHAPE = 2
    HAS_DATATYPE = 4
    HAS_DATA = 8
    HAS_PARAMETERS = 16


cdef int read_shape(Reader* r, InputRef* given) noexcept nogil:
    cdef uint64_t dim = 0
    cdef int entered = enter(r, b"shape", b"[")
    given.rank = 0
    while entered > 0:
        if read_count(r, b"shape", <uint64_t>INT64_MAX, &dim) < 0:
            return -1
        if given.rank < INFER_MAX_RANK:
            given.dims[given.rank] = <int64_t>dim
        if given.rank <= INFER_MAX_RANK:
            given.rank += 1
        entered = more(r, b"[")
    return entered


cdef int check_one_source(Reader* r, int has_data, const TensorParameters* said) noexcept nogil:
    cdef int is_shared = said.shared.given & SHARED_REGION
    cdef int count = has_data + said.has_binary_size + is_shared
    if count == 1:
        return 0
    return infer_fail(
        r.err, INFER_INVALID_ARGUMENT,
        b"Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters', "
        b"'shared_memory_region' in 'parameters'. But%s%s%s%s",
        b" no field is set" if count == 0 else b" set",
        b" 'data'" if has_data else b"",
        b" 'binary_data_size'" if said.has_binary_size else b"",
        b" 'shared_memory_region'" if is_shared else b"",
    )


cdef int measure_strings(InputRef* at, Span name, InferError* err) noexcept nogil:
    at.last_bytes = 0
    if infer_strings_measure(at.json_data, &at.wire_count, &at.content_bytes, err) == 0:
        return 0
    infer_error_name_input(err, name)
    return -1


cdef int place_input(Reader* r, const Text* name, const InputRef* given, const TensorParameters* said) noexcept nogil:
    """Puts a complete input where its name belongs and takes its binary section."""
    cdef const TensorSpec* inputs = r.spec.inputs
    cdef InputRef* at
    cdef int i
    for i in range(r.spec.n_inputs):
        if json_text_is(name.raw, name.escaped, inputs[i].name.p, inputs[i].name.n):
            break
    else:
        return fail_unexpected(r, False, name)
    at = &r.request.inputs[i]
    if at.spec_index >= 0:
        return fail_named(r, INFER_INVALID_ARGUMENT, b"input '%.*s' already exists in request", name)
    at[0] = given[0]
    at.spec_index = i
    r.request.n_inputs += 1
    if said.shared.given & SHARED_REGION:
        at.wire_source = WIRE_SOURCE_SHARED
        at.shared = shared_from_json(r, &said.shared, name)
        return 0 if at.shared != NULL else -1
    if not said.has_binary_size:
        if given.dtype == DTYPE_BYTES and inputs[i].dtype == DTYPE_BYTES:
            return measure_strings(at, inputs[i].name, r.err)
        return 0
    at.is_binary = 1
    if tensor_bytes_take(&r.sections, said.binary_size, inputs[i].name, r.spec, &at.bytes, r.err) < 0:
        return -1
    return tensor_bytes_check(at.bytes, inputs[i].dtype, inputs[i].name, r.err)


cdef int read_input_member(
    Reader* r, Keys* keys, const Text* key, Text* name, InputRef* given, TensorParameters* said
) noexcept nogil:
    cdef Text datatype
    if key_is(key, b"name", 4):
        if note_known(r, keys, HAS_NAME, key) < 0:
            return -1
        return read_text(r, b"name", name)
    if key_is(key, b"data", 4):
        if note_known(r, keys, HAS_DATA, key) < 0:
            return -1
        if json_peek(&r.scan) != b"[":
            return fail_value(r, b"data", b"an array")
        if json_array_extent(&r.scan, &given.json_data) < 0:
            return fail_json(r)
        return 0
    if key_is(key, b"shape", 5):
        if note_known(r, keys, HAS_SHAPE, key) < 0:
            return -1
        return read_shape(r, given)
    if key_is(key, b"datatype", 8):
        if note_known(r, keys, HAS_DATATYPE, key) < 0 or read_text(r, b"datatype", &datatype) < 0:
            return -1
        given.datatype = datatype.raw
        given.dtype = dtype_from_name(datatype.raw.p, datatype.raw.n)
        return 0
    if key_is(key, b"parameters", 10):
        if note_known(r, keys, HAS_PARAMETERS, key) < 0:
            return -1
        return read_tensor_parameters(r, 1, said)
    return skip_unknown(r, keys, key)


cdef int read_input(Reader* r) noexcept nogil:
    cdef Keys keys
    cdef Text key
    cdef Text name
    cdef InputRef given
    cdef TensorParameters said
    cdef int entered
    keys.known = 0
    keys.unknown_count = 0
    given.dtype = 0
    given.rank = 0
    given.element_count = 0
    given.byte_count = 0
    given.is_binary = 0
    given.wire_source = 0
    given.json_data.p = given.bytes.p = given.datatype.p = NULL
    given.json_data.n = given.bytes.n = given.datatype.n = 0
    said.has_binary_size = said.shared.given = 0
    entered = enter(r, b"inputs", b"{")
    while entered > 0:
        if next_key(r, &key) < 0 or read_input_member(r, &keys, &key, &name, &given, &said) < 0:
            return -1
        entered = more(r, b"{")
    if entered < 0:
        return -1
    if check_one_source(r, (keys.known & HAS_DATA) != 0, &said) < 0:
        return -1
    if not keys.known & HAS_NAME:
        return infer_fail(r.err, INFER_INVALID_ARGUMENT, b"Unable to parse 'name': an input has none")
    if not keys.known & HAS_DATATYPE:
        return fail_named(r, INFER_INVALID_ARGUMENT, b"Unable to parse 'datatype': input '%.*s' has none", &name)
    if not keys.known & HAS_SHAPE:
        return fail_named(r, INFER_INVALID_ARGUMENT, b"Unable to parse 'shape': input '%.*s' has none", &name)
    return place_input(r, &name, &given, &said)


# ---- outputs

cdef int place_output(Reader* r, const Text* name, const TensorParameters* said) noexcept nogil:
    cdef const TensorSpec* outputs = r.spec.outputs
    cdef int i
    cdef int k
    for i in range(r.spec.n_outputs):
        if json_text_is(name.raw, name.escaped, outputs[i].name.p, outputs[i].name.n):
            break
    else:
        return fail_unexpected(r, True, name)
    for k in range(r.request.n_outputs):
        if r.request.outputs[k].spec_index == i:
            return fail_named(r, INFER_INVALID_ARGUMENT, b"output '%.*s' already exists in request", name)
    if said.shared.given & SHARED_REGION and said.classification:
        return fail_named(
            r, INFER_INVALID_ARGUMENT,
            b"output '%.*s': 'classification' cannot be combined with 'shared_memory_region'", name
        )
    if said.shared.given & SHARED_REGION and said.binary_data == 1:
        return fail_named(
            r, INFER_INVALID_ARGUMENT,
            b"output '%.*s': 'binary_data' cannot be combined with 'shared_memory_region'", name
        )
    if infer_classes_ask(&r.request.outputs[r.request.n_outputs], &outputs[i], said.classification, r.err) < 0:
        return -1
    r.request.outputs[r.request.n_outputs].spec_index = i
    r.request.outputs[r.request.n_outputs].binary = said.binary_data
    r.request.outputs[r.request.n_outputs].shared = NULL
    if said.shared.given & SHARED_REGION:
        r.request.outputs[r.request.n_outputs].binary = 0
        r.request.outputs[r.request.n_outputs].shared = shared_from_json(r, &said.shared, name)
        if r.request.outputs[r.request.n_outputs].shared == NULL:
            return -1
    r.request.n_outputs += 1
    return 0


cdef int read_output(Reader* r) noexcept nogil:
    cdef Keys keys
    cdef Text key
    cdef Text name
    cdef TensorParameters said
    cdef int entered
    keys.known = 0
    keys.unknown_count = 0
    said.shared.given = 0
    said.classification = 0
    said.binary_data = -1
    entered = enter(r, b"outputs", b"{")
    while entered > 0:
        if next_key(r, &key) < 0:
            return -1
        if key_is(&key, b"name", 4):
            if note_known(r, &keys, HAS_NAME, &key) < 0 or read_text(r, b"name", &name) < 0:
                return -1
        elif key_is(&key, b"parameters", 10):
            if note_known(r, &keys, HAS_PARAMETERS, &key) < 0 or read_tensor_parameters(r, 0, &said) < 0:
                return -1
        elif skip_unknown(r, &keys, &key) < 0:
            return -1
        entered = more(r, b"{")
    if entered < 0:
        return -1
    if not keys.known & HAS_NAME:
        return infer_fail(r.err, INFER_INVALID_ARGUMENT, b"Unable to parse 'name': an output has none")
    return place_output(r, &name, &said)


# ---- the request

cdef enum:
    HAS_ID = 1
    HAS_INPUTS = 2
    HAS_OUTPUTS = 4
    HAS_REQUEST_PARAMETERS = 8


cdef int read_inputs(Reader* r) noexcept nogil:
    cdef int entered = enter(r, b"inputs", b"[")
    while entered > 0:
        if read_input(r) < 0:
            return -1
        entered = more(r, b"[")
    return entered


cdef int read_outputs(Reader* r) noexcept nogil:
    cdef int entered
    if json_peek(&r.scan) == b"n" and json_word(&r.scan, b"null", 4):
        return 0
    entered = enter(r, b"outputs", b"[")
    while entered > 0:
        if read_output(r) < 0:
            return -1
        entered = more(r, b"[")
    return entered


cdef int read_request_member(Reader* r, Keys* keys, const Text* key) noexcept nogil:
    cdef Text text
    if key_is(key, b"inputs", 6):
        if note_known(r, keys, HAS_INPUTS, key) < 0:
            return -1
        return read_inputs(r)
    if key_is(key, b"outputs", 7):
        if note_known(r, keys, HAS_OUTPUTS, key) < 0:
            return -1
        return read_outputs(r)
    if key_is(key, b"id", 2):
        if note_known(r, keys, HAS_ID, key) < 0:
            return -1
        if json_peek(&r.scan) == b"n" and json_word(&r.scan, b"null", 4):
            return 0
        if read_text(r, b"id", &text) < 0:
            return -1
        r.request.id = text.raw
        r.request.has_id = 1
        return 0
    if key_is(key, b"parameters", 10):
        if note_known(r, keys, HAS_REQUEST_PARAMETERS, key) < 0:
            return -1
        if json_peek(&r.scan) == b"n" and json_word(&r.scan, b"null", 4):
            return 0
        return read_request_parameters(r)
    return skip_unknown(r, keys, key)


cdef int read_request(Reader* r) noexcept nogil:
    cdef Keys keys
    cdef Text key
    cdef int entered
    cdef int i
    keys.known = 0
    keys.unknown_count = 0
    entered = json_enter(&r.scan, b"{")
    if entered < 0:
        return fail_json(r)
    while entered > 0:
        if next_key(r, &key) < 0 or read_request_member(r, &keys, &key) < 0:
            return -1
        entered = more(r, b"{")
    if entered < 0:
        return -1
    if json_peek(&r.scan) != 0 or r.scan.p != r.scan.end:
        r.scan.expected = b"the end"
        return fail_json(r)
    if not keys.known & HAS_INPUTS:
        return infer_fail(r.err, INFER_INVALID_ARGUMENT, b"Unable to parse 'inputs': the request has none")
    for i in range(r.request.n_outputs):
        if r.request.outputs[i].binary < 0:
            r.request.outputs[i].binary = r.request.binary_output_default
    return 0


cdef int infer_json_index(
    const char* buf, size_t json_len, size_t total_len, const ModelSpec* spec, InferRequest* out, InferError* err
) noexcept nogil:
    cdef Reader r
    r.spec = spec
    r.request = out
    r.err = err
    infer_request_reset(out, spec)
    if json_len > total_len:
        return infer_fail(
            err, INFER_INVALID_ARGUMENT,
            b"inference header size should be in range (0, %zu), got: %zu", total_len, json_len
        )
    tensor_bytes_begin(&r.sections, buf + json_len, buf + total_len)
    json_start(&r.scan, buf, json_len)
    if read_request(&r) < 0 or infer_validate(out, spec, err) < 0:
        return -1
    return tensor_bytes_end(&r.sections, spec, err)


cdef int infer_raw_index(
    const char* body, size_t n, const ModelSpec* spec, InferRequest* out, InferError* err
) noexcept nogil:
    cdef Span contents
    contents.p = body
    contents.n = n
    return tensor_bytes_raw(contents, spec, out, err)


# ---- Python face

cdef object span_or_none(Span span, const char* base):
    return None if span.p == NULL else (span.p - base, <Py_ssize_t>span.n)


cdef object shared_or_none(const SharedRef* shared, const char* base):
    return None if shared == NULL else (span_or_none(shared.region, base), shared.offset, shared.byte_size)


cdef dict as_dict(const InferRequest* r, const char* base):
    cdef int i
    cdef int k
    inputs = []
    for i in range(r.n_inputs):
        inputs.append({
            "datatype": dtype_name(r.inputs[i].dtype).decode(),
            "shape": [r.inputs[i].dims[k] for k in range(r.inputs[i].rank)],
            "element_count": r.inputs[i].element_count,
            "byte_count": r.inputs[i].byte_count,
            "json_data": span_or_none(r.inputs[i].json_data, base),
            "bytes": span_or_none(r.inputs[i].bytes, base) if r.inputs[i].is_binary else None,
            "shared": shared_or_none(r.inputs[i].shared, base)
            if not r.inputs[i].is_binary and r.inputs[i].wire_source == WIRE_SOURCE_SHARED else None,
        })
    return {
        "id": r.id.p[: r.id.n] if r.has_id else None,
        "inputs": inputs,
        "outputs": [(r.outputs[i].spec_index, bool(r.outputs[i].binary)) for i in range(r.n_outputs)],
        "class_counts": [r.outputs[i].class_count for i in range(r.n_outputs)],
        "shared_outputs": [shared_or_none(r.outputs[i].shared, base) for i in range(r.n_outputs)],
        "timeout_us": r.timeout_us,
        "priority": r.priority,
        "rows": r.rows,
    }


cdef dict run_index(const unsigned char[::1] body, Spec spec, Py_ssize_t json_bytes, int raw):
    cdef InferRequest request
    cdef InferError err
    cdef const char* base = <const char*>&body[0]
    cdef size_t n = <size_t>body.shape[0]
    cdef int status
    if infer_request_alloc(&request, spec.c) < 0:
        raise MemoryError
    try:
        with nogil:
            if raw:
                status = infer_raw_index(base, n, spec.c, &request, &err)
            else:
                status = infer_json_index(base, n if json_bytes < 0 else <size_t>json_bytes, n, spec.c, &request, &err)
        if status < 0:
            raise_infer_error(&err)
        return as_dict(&request, base)
    finally:
        infer_request_free(&request)


def index(const unsigned char[::1] body, Spec spec, Py_ssize_t json_bytes=-1):
    """See infer_json_index.pyi."""
    return run_index(body, spec, json_bytes, 0)


def raw_index(const unsigned char[::1] body, Spec spec):
    """See infer_json_index.pyi."""
    return run_index(body, spec, -1, 1)


def check_json(const unsigned char[::1] text):
    """See infer_json_index.pyi."""
    cdef Reader r
    cdef InferError err
    cdef int status
    r.err = &err
    json_start(&r.scan, <const char*>&text[0], <size_t>text.shape[0])
    with nogil:
        status = json_skip(&r.scan)
        if status < 0:
            fail_json(&r)
        elif json_peek(&r.scan) != 0 or r.scan.p != r.scan.end:
            r.scan.expected = b"the end"
            status = fail_json(&r)
    if status < 0:
        raise_infer_error(&err)
