"""tensorflow.serving.PredictRequest: members, their resolution against a model, and the Python face.

The contract is in tensor_proto.pxd, the wire format in proto_scan.h, the fields of a TensorProto in wire_elements.h. A
map entry replaces an earlier one of the same key, so nothing that an entry says is judged before the whole message is
read. Memory: the caller's InferRequest, and this pass's stack. Functions return >= 0, or -1 with the error filled;
nothing below the Python face touches an object. Any thread; O(message bytes + names squared).
"""

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.string cimport memset, strlen

from server._fast.infer_spec cimport (
    DTYPE_BYTES,
    INFER_INVALID_ARGUMENT,
    INFER_MAX_RANK,
    WIRE_SOURCE_TENSOR_PROTO,
    InferError,
    InferRequest,
    InputRef,
    ModelSpec,
    Span,
    Spec,
    infer_fail,
    infer_find_tensor,
    infer_request_alloc,
    infer_request_free,
    infer_request_reset,
    infer_validate,
    raise_infer_error,
)
from server._fast.name_list cimport NameList, name_list_add, name_list_text
from server._fast.proto_scan cimport (
    WIRE_BYTES,
    WIRE_VARINT,
    ProtoField,
    ProtoScan,
    proto_count_elements,
    proto_next,
    proto_start,
    proto_text,
    proto_text_is,
)
from server._fast.tensor_bytes cimport tensor_bytes_check
from server._fast.wire_fill cimport request_as_dict


cdef extern from "wire_elements.h" nogil:
    ctypedef struct WireField:
        uint8_t number
        uint8_t wire

    WireField wire_field(int source, int dtype) noexcept
    int wire_of_number(int source, unsigned number) noexcept


cdef extern from "tensorflow_types.h" nogil:
    int tensorflow_dtype(int number) noexcept
    const char* tensorflow_dtype_name(int number) noexcept


# A few bytes may stand for a large tensor, but not for more than a message could hold.
cdef enum:
    FILLED_MAX_BYTES = 64 << 20


# wire_count of an input whose values are in the field of another datatype.
cdef enum:
    ELSEWHERE = -1


# Which of output_filter's faults came first.
cdef enum:
    OUTPUTS_KNOWN = 0
    OUTPUT_UNKNOWN = 1
    OUTPUT_TWICE = 2


cdef struct Reader:
    const ModelSpec* spec
    InferRequest* request
    InferError* err
    TfsModel model
    NameList unknown       # inputs that the model does not have
    int output_fault
    Span wrong_output


cdef inline int clip(Span text) noexcept nogil:
    """A precision for %.*s: long names are cut."""
    return <int>text.n if text.n < 128 else 128


cdef int fail_malformed(InferError* err) noexcept nogil:
    return infer_fail(
        err, INFER_INVALID_ARGUMENT, b"invalid protobuf: expected a message of type tensorflow.serving.PredictRequest"
    )


# ---- names

cdef int fail_inputs(const Reader* r, int known) noexcept nogil:
    """The request's inputs are not the model's."""
    cdef NameList wanted
    cdef NameList missing
    cdef NameList sent = r.unknown
    cdef char wanted_text[96]
    cdef char missing_text[80]
    cdef char sent_text[96]
    cdef char extra_text[80]
    cdef int i
    wanted.count = missing.count = 0
    for i in range(r.spec.n_inputs):
        name_list_add(&wanted, r.spec.inputs[i].name)
        name_list_add(&sent if r.request.inputs[i].spec_index >= 0 else &missing, r.spec.inputs[i].name)
    name_list_text(&wanted, wanted_text, sizeof(wanted_text))
    if known + r.unknown.count == r.spec.n_inputs:
        return infer_fail(
            r.err, INFER_INVALID_ARGUMENT,
            b"input tensor alias not found in signature: %.*s. Inputs expected to be in the set {%s}.",
            clip(r.unknown.names[0]), r.unknown.names[0].p, wanted_text,
        )
    name_list_text(&sent, sent_text, sizeof(sent_text))
    name_list_text(&missing, missing_text, sizeof(missing_text))
    name_list_text(&r.unknown, extra_text, sizeof(extra_text))
    return infer_fail(
        r.err, INFER_INVALID_ARGUMENT,
        b"input size does not match signature: %d!=%d len({%s}) != len({%s}). Sent extra: {%s}. Missing but required: "
        b"{%s}.",
        known + r.unknown.count, r.spec.n_inputs, sent_text, wanted_text, extra_text, missing_text,
    )


cdef int check_names(Reader* r) noexcept nogil:
    """The request names all of the model's inputs and no other, and only outputs that there are."""
    cdef int known = 0
    cdef int i
    cdef NameList wanted
    cdef char text[200]
    for i in range(r.spec.n_inputs):
        known += r.request.inputs[i].spec_index >= 0
    r.request.n_inputs = known
    if known != r.spec.n_inputs or r.unknown.count:
        return fail_inputs(r, known)
    if r.output_fault == OUTPUT_TWICE:
        return infer_fail(
            r.err, INFER_INVALID_ARGUMENT, b"duplicate output tensor alias: %.*s",
            clip(r.wrong_output), r.wrong_output.p,
        )
    if r.output_fault == OUTPUT_UNKNOWN:
        wanted.count = 0
        for i in range(r.spec.n_outputs):
            name_list_add(&wanted, r.spec.outputs[i].name)
        name_list_text(&wanted, text, sizeof(text))
        return infer_fail(
            r.err, INFER_INVALID_ARGUMENT,
            b"output tensor alias not found in signature: %.*s Outputs expected to be in the set {%s}.",
            clip(r.wrong_output), r.wrong_output.p, text,
        )
    return 0


# ---- inputs

# What one TensorProto says, while its fields are read.
cdef struct Tensor:
    int32_t dtype
    int rank
    int64_t dims[8]
    Span content
    int64_t counts[18]     # elements per field
    int64_t value_count    # of all
    size_t content_bytes   # of string_val
    size_t last_bytes      # of its last element


cdef int read_dim(Tensor* t, const ProtoField* message) noexcept nogil:
    cdef ProtoScan scan
    cdef ProtoField f
    cdef Span ignored
    cdef int status
    cdef int64_t size = 0
    proto_start(&scan, message.bytes.p, message.bytes.n, 5)
    while True:
        status = proto_next(&scan, &f)
        if status <= 0:
            break
        if f.number == 1 and f.wire == WIRE_VARINT:
            size = <int64_t>f.value
        elif f.number == 2 and proto_text(&f, &ignored) < 0:
            return -1
    if t.rank < INFER_MAX_RANK:
        t.dims[t.rank] = size
    if t.rank <= INFER_MAX_RANK:
        t.rank += 1
    return status


cdef int read_shape(Tensor* t, const ProtoField* message) noexcept nogil:
    cdef ProtoScan scan
    cdef ProtoField f
    cdef int status
    proto_start(&scan, message.bytes.p, message.bytes.n, 4)
    while True:
        status = proto_next(&scan, &f)
        if status <= 0:
            return status
        if f.number == 2 and f.wire == WIRE_BYTES and read_dim(t, &f) < 0:
            return -1


cdef int read_values(Tensor* t, const ProtoField* f) noexcept nogil:
    """A field that may be one of the *_val."""
    cdef int wire = wire_of_number(WIRE_SOURCE_TENSOR_PROTO, f.number)
    cdef int64_t count = 0
    if wire >= 0:
        count = proto_count_elements(f, wire)
    elif f.number == 8 and f.wire == WIRE_BYTES:
        count = 1
        t.content_bytes += f.bytes.n
        t.last_bytes = f.bytes.n
    if count <= 0:
        return <int>count
    t.counts[f.number] += count
    t.value_count += count
    return 0


cdef int read_tensor(Tensor* t, const ProtoField* message) noexcept nogil:
    cdef ProtoScan scan
    cdef ProtoField f
    cdef int status
    proto_start(&scan, message.bytes.p, message.bytes.n, 3)
    while True:
        status = proto_next(&scan, &f)
        if status <= 0:
            return status
        if f.number == 1:
            if f.wire == WIRE_VARINT:
                t.dtype = <int32_t>f.value
        elif f.number == 2:
            if f.wire == WIRE_BYTES:
                status = read_shape(t, &f)
        elif f.number == 4:
            if f.wire == WIRE_BYTES:
                t.content = f.bytes
        else:
            status = read_values(t, &f)
        if status < 0:
            return -1


cdef void place_input(InputRef* at, int index, const Tensor* t, Span entry) noexcept nogil:
    """Replaces what an earlier entry of the same key left."""
    cdef int i
    memset(at, 0, sizeof(InputRef))
    at.spec_index = index
    at.dtype = tensorflow_dtype(t.dtype)
    at.datatype.p = tensorflow_dtype_name(t.dtype)
    at.datatype.n = strlen(at.datatype.p)
    at.rank = t.rank
    for i in range(t.rank if t.rank < INFER_MAX_RANK else INFER_MAX_RANK):
        at.dims[i] = t.dims[i]
    if t.content.n and at.dtype != DTYPE_BYTES:
        at.is_binary = 1
        at.bytes = t.content
        return
    at.wire_source = WIRE_SOURCE_TENSOR_PROTO
    at.wire = entry
    at.content_bytes = t.content_bytes
    at.last_bytes = t.last_bytes
    at.wire_count = t.counts[wire_field(WIRE_SOURCE_TENSOR_PROTO, at.dtype).number]
    # tensor_content of strings is a form of TensorFlow's own, which no client library writes.
    if (at.wire_count == 0 and t.value_count) or t.content.n:
        at.wire_count = ELSEWHERE


cdef int read_input(Reader* r, const ProtoField* entry) noexcept nogil:
    cdef ProtoScan scan
    cdef ProtoField f
    cdef Tensor t
    cdef Span key
    cdef int status
    cdef int index
    cdef int others = 0
    memset(&t, 0, sizeof(t))
    memset(&key, 0, sizeof(key))
    proto_start(&scan, entry.bytes.p, entry.bytes.n, 2)
    while True:
        status = proto_next(&scan, &f)
        if status <= 0:
            break
        if f.wire != WIRE_BYTES or f.number > 2:
            others = 1
        elif f.number == 1:
            status = proto_text(&f, &key)
        else:
            status = read_tensor(&t, &f)
        if status < 0:
            break
    if status < 0 or others or scan.skipped:
        return status
    index = infer_find_tensor(r.spec.inputs, r.spec.n_inputs, key)
    if index < 0:
        name_list_add(&r.unknown, key)
    else:
        place_input(&r.request.inputs[index], index, &t, entry.bytes)
    return 0


# ---- model and outputs

cdef int read_version(TfsModel* model, const ProtoField* message) noexcept nogil:
    """google.protobuf.Int64Value; one behind another adds to it, as both are the same message."""
    cdef ProtoScan scan
    cdef ProtoField f
    cdef int status
    if not model.has_version:
        model.version = 0
    model.has_version = 1
    memset(&model.label, 0, sizeof(Span))
    proto_start(&scan, message.bytes.p, message.bytes.n, 3)
    while True:
        status = proto_next(&scan, &f)
        if status <= 0:
            return status
        if f.number == 1 and f.wire == WIRE_VARINT:
            model.version = <int64_t>f.value


cdef int read_model(TfsModel* model, const ProtoField* message) noexcept nogil:
    cdef ProtoScan scan
    cdef ProtoField f
    cdef int status
    model.given = 1
    proto_start(&scan, message.bytes.p, message.bytes.n, 2)
    while True:
        status = proto_next(&scan, &f)
        if status <= 0:
            return status
        if f.number == 1:
            status = proto_text(&f, &model.name)
        elif f.number == 2 and f.wire == WIRE_BYTES:
            status = read_version(model, &f)
        elif f.number == 3:
            status = proto_text(&f, &model.signature)
        elif f.number == 4:
            status = proto_text(&f, &model.label)
            if status > 0:
                model.has_version = 0
        if status < 0:
            return -1


cdef int read_output(Reader* r, const ProtoField* f) noexcept nogil:
    cdef InferRequest* request = r.request
    cdef Span name
    cdef int index
    cdef int i
    if proto_text(f, &name) < 0:
        return -1
    if r.output_fault:
        return 0
    index = infer_find_tensor(r.spec.outputs, r.spec.n_outputs, name)
    if index < 0:
        r.output_fault = OUTPUT_UNKNOWN
        r.wrong_output = name
        return 0
    for i in range(request.n_outputs):
        if request.outputs[i].spec_index == index:
            r.output_fault = OUTPUT_TWICE
            r.wrong_output = name
            return 0
    request.outputs[request.n_outputs].spec_index = index
    request.outputs[request.n_outputs].binary = 1
    request.outputs[request.n_outputs].class_count = 0
    request.outputs[request.n_outputs].shared = NULL
    request.n_outputs += 1
    return 0


# ---- the request

cdef int read_request(Reader* r, const char* buf, size_t n) noexcept nogil:
    cdef ProtoScan scan
    cdef ProtoField f
    cdef int status
    proto_start(&scan, buf, n, 1)
    while True:
        status = proto_next(&scan, &f)
        if status > 0 and f.wire == WIRE_BYTES:
            if f.number == 1:
                status = read_model(&r.model, &f) | 1
            elif f.number == 2:
                status = read_input(r, &f) | 1
            elif f.number == 3:
                status = read_output(r, &f) | 1
        if status < 0:
            return fail_malformed(r.err)
        if status == 0:
            return 0


cdef int check_inputs(Reader* r) noexcept nogil:
    """What infer_validate does not know of: values in the wrong field, BOOL bytes."""
    cdef InputRef* at
    cdef Span name
    cdef int i
    for i in range(r.spec.n_inputs):
        at = &r.request.inputs[i]
        name = r.spec.inputs[i].name
        if at.is_binary:
            if tensor_bytes_check(at.bytes, at.dtype, name, r.err) < 0:
                return -1
        elif at.wire_count == ELSEWHERE and at.element_count:
            return infer_fail(
                r.err, INFER_INVALID_ARGUMENT,
                b"tensor parsing error: %.*s: the values are not in the field of %.*s",
                clip(name), name.p, clip(at.datatype), at.datatype.p,
            )
        elif at.wire_count < at.element_count and at.byte_count > FILLED_MAX_BYTES:
            return infer_fail(
                r.err, INFER_INVALID_ARGUMENT,
                b"tensor parsing error: %.*s: %lld values for %lld elements; at most %lld bytes are filled with "
                b"the last value",
                clip(name), name.p, <long long>at.wire_count, <long long>at.element_count,
                <long long>FILLED_MAX_BYTES,
            )
    return 0


cdef int tfs_predict_index(
    const char* buf, size_t n, const ModelSpec* spec, InferRequest* out, InferError* err
) noexcept nogil:
    cdef Reader r
    cdef Span signature
    memset(&r, 0, sizeof(r))
    r.spec = spec
    r.request = out
    r.err = err
    infer_request_reset(out, spec)
    out.binary_output_default = 1
    if read_request(&r, buf, n) < 0:
        return -1
    signature = r.model.signature
    if signature.n and not proto_text_is(signature, b"serving_default", 15):
        return infer_fail(
            err, INFER_INVALID_ARGUMENT, b"Serving signature key \"%.*s\" not found.", clip(signature), signature.p
        )
    if check_names(&r) < 0 or infer_validate(out, spec, err) < 0:
        return -1
    return check_inputs(&r)


cdef int tfs_predict_model(const char* buf, size_t n, TfsModel* model, InferError* err) noexcept nogil:
    cdef ProtoScan scan
    cdef ProtoField f
    cdef int status
    memset(model, 0, sizeof(TfsModel))
    proto_start(&scan, buf, n, 1)
    while True:
        status = proto_next(&scan, &f)
        if status > 0 and f.number == 1 and f.wire == WIRE_BYTES:
            status = read_model(model, &f) | 1
        if status < 0:
            return fail_malformed(err)
        if status == 0:
            return 0


# ---- Python face

def model(const unsigned char[::1] message):
    """See tensor_proto.pyi."""
    cdef InferError err
    cdef TfsModel found
    if tfs_predict_model(<const char*>&message[0], <size_t>message.shape[0], &found, &err) < 0:
        raise_infer_error(&err)
    if not found.given:
        return None
    return {
        "name": found.name.p[: found.name.n],
        "version": found.version if found.has_version else None,
        "label": found.label.p[: found.label.n],
        "signature": found.signature.p[: found.signature.n],
    }


def index(const unsigned char[::1] message, Spec spec, row_counts=()):
    """See tensor_proto.pyi."""
    cdef InferRequest request
    cdef InferError err
    cdef const char* base = <const char*>&message[0]
    cdef size_t n = <size_t>message.shape[0]
    cdef int status
    if infer_request_alloc(&request, spec.c) < 0:
        raise MemoryError
    try:
        with nogil:
            status = tfs_predict_index(base, n, spec.c, &request, &err)
        if status < 0:
            raise_infer_error(&err)
        return request_as_dict(&request, spec.c, base, row_counts)
    finally:
        infer_request_free(&request)
