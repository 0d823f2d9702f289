"""inference.ModelInferRequest: members, their resolution against a model, and the Python face.

The contract is in infer_wire.pxd, the wire format in proto_scan.h, the meaning of parameters in infer_parameters.pxd.
One pass reads everything but the raw contents, a second one hands these to the inputs: which input is the n-th is known
only at the end. Memory: the caller's InferRequest, and this pass's stack. Functions return >= 0, or -1 with the error
filled; nothing below the Python face touches an object. Any thread; O(message bytes + inputs squared).
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memset

from server._fast.infer_classes cimport infer_classes_ask
from server._fast.infer_parameters cimport (
    RequestParameters,
    TensorParameters,
    apply_request_parameters,
    check_output_parameters,
    read_request_parameter,
    read_tensor_parameter,
)
from server._fast.infer_shared_parameters cimport shared_from_wire
from server._fast.infer_spec cimport (
    DTYPE_INVALID,
    INFER_INVALID_ARGUMENT,
    INFER_MAX_RANK,
    WIRE_SOURCE_CONTENTS,
    WIRE_SOURCE_SHARED,
    InferError,
    InferRequest,
    InputRef,
    ModelSpec,
    Span,
    Spec,
    dtype_from_name,
    dtype_name,
    infer_fail,
    infer_fail_unexpected,
    infer_find_tensor,
    infer_request_alloc,
    infer_request_free,
    infer_request_reset,
    infer_validate,
    raise_infer_error,
)
from server._fast.proto_scan cimport (
    PROTO_VARINT_MAX_BYTES,
    WIRE_BYTES,
    WIRE_VARINT,
    ProtoField,
    ProtoScan,
    proto_count_elements,
    proto_next,
    proto_start,
    proto_text,
    proto_varint,
)
from server._fast.tensor_bytes cimport tensor_bytes_check
from server._fast.wire_fill cimport request_as_dict


cdef extern from "wire_elements.h" nogil:
    ctypedef struct WireField:
        uint8_t number
        uint8_t wire

    enum: WIRE_CONTENTS_FIELDS
    WireField wire_field(int source, int dtype) noexcept
    int wire_of_number(int source, unsigned number) noexcept
    const char* wire_contents_name(int number) noexcept


cdef struct Reader:
    const ModelSpec* spec
    InferRequest* request
    InferError* err
    int input_count        # so far, without those in shared memory
    int shared_input_count
    int raw_count
    int contents_count     # inputs with typed contents
    RequestParameters parameters


cdef inline int clip(Span text) noexcept nogil:
    """A precision for %.*s: long names are cut."""
    return <int>text.n if text.n < 128 else 128


cdef int fail_malformed(InferError* err) noexcept nogil:
    return infer_fail(
        err, INFER_INVALID_ARGUMENT, b"invalid protobuf: expected a message of type inference.ModelInferRequest"
    )


cdef int fail_named(const Reader* r, const char* format, Span name) noexcept nogil:
    """A format with two %.*s: a tensor of the request, then the model."""
    cdef Span model = r.spec.name
    return infer_fail(r.err, INFER_INVALID_ARGUMENT, format, clip(name), name.p, clip(model), model.p)


# ---- inputs

# What one input tensor says, while its fields are read.
cdef struct Tensor:
    Span name
    Span datatype
    int rank
    int64_t dims[8]
    int has_contents
    int64_t counts[9]      # elements per field of InferTensorContents
    size_t content_bytes   # of the BYTES elements
    TensorParameters parameters


cdef int add_dims(Tensor* t, const ProtoField* f) noexcept nogil:
    cdef const char* p = f.bytes.p
    cdef const char* end = f.bytes.p + f.bytes.n
    cdef uint64_t dim = 0
    while p != end:
        if proto_varint(&p, end, PROTO_VARINT_MAX_BYTES, &dim) < 0:
            return -1
        if t.rank < INFER_MAX_RANK:
            t.dims[t.rank] = <int64_t>dim
        if t.rank <= INFER_MAX_RANK:
            t.rank += 1
    return 0


cdef int count_contents(Tensor* t, const ProtoField* message) noexcept nogil:
    cdef ProtoScan scan
    cdef ProtoField f
    cdef int status
    cdef int wire
    cdef int64_t count
    t.has_contents = 1
    proto_start(&scan, message.bytes.p, message.bytes.n, 3)
    while True:
        status = proto_next(&scan, &f)
        if status <= 0:
            return status
        wire = wire_of_number(WIRE_SOURCE_CONTENTS, f.number)
        if wire >= 0:
            count = proto_count_elements(&f, wire)
            if count < 0:
                return -1
            t.counts[f.number] += count
        elif f.number == 8 and f.wire == WIRE_BYTES:
            t.counts[8] += 1
            t.content_bytes += f.bytes.n


cdef int read_tensor_fields(Tensor* t, const ProtoField* message) noexcept nogil:
    cdef ProtoScan scan
    cdef ProtoField f
    cdef int status
    memset(t, 0, sizeof(Tensor))
    proto_start(&scan, message.bytes.p, message.bytes.n, 2)
    while True:
        status = proto_next(&scan, &f)
        if status <= 0:
            return status
        if f.number == 1:
            status = proto_text(&f, &t.name)
        elif f.number == 2:
            status = proto_text(&f, &t.datatype)
        elif f.number == 3 and (f.wire == WIRE_VARINT or f.wire == WIRE_BYTES):
            status = add_dims(t, &f)
        elif f.number == 4 and f.wire == WIRE_BYTES:
            status = read_tensor_parameter(&t.parameters, &f)
        elif f.number == 5 and f.wire == WIRE_BYTES:
            status = count_contents(t, &f)
        if status < 0:
            return -1


cdef int check_contents(const Reader* r, const Tensor* t, int dtype) noexcept nogil:
    """The elements are in the field of the datatype and in no other."""
    cdef int number
    cdef int own = wire_field(WIRE_SOURCE_CONTENTS, dtype).number
    if dtype == DTYPE_INVALID:
        return 0    # refused by its name
    for number in range(1, WIRE_CONTENTS_FIELDS):
        if t.counts[number] and number != own:
            return infer_fail(
                r.err, INFER_INVALID_ARGUMENT,
                b"unexpected explicit tensor data for input tensor '%.*s' for model '%.*s' of type '%s', expected "
                b"datatype '%s'",
                clip(t.name), t.name.p, clip(r.spec.name), r.spec.name.p, wire_contents_name(number), dtype_name(dtype),
            )
    return 0


cdef int read_input(Reader* r, const ProtoField* message) noexcept nogil:
    cdef Tensor t
    cdef InputRef* at
    cdef int index
    cdef int i
    if read_tensor_fields(&t, message) < 0:
        return fail_malformed(r.err)
    index = infer_find_tensor(r.spec.inputs, r.spec.n_inputs, t.name)
    if index < 0:
        return infer_fail_unexpected(r.err, False, t.name, r.spec)
    at = &r.request.inputs[index]
    if at.spec_index >= 0:
        return infer_fail(
            r.err, INFER_INVALID_ARGUMENT, b"input '%.*s' already exists in request", clip(t.name), t.name.p
        )
    memset(at, 0, sizeof(InputRef))
    at.spec_index = index
    at.datatype = t.datatype
    at.dtype = dtype_from_name(t.datatype.p, t.datatype.n)
    at.rank = t.rank
    for i in range(t.rank if t.rank < INFER_MAX_RANK else INFER_MAX_RANK):
        at.dims[i] = t.dims[i]
    if t.parameters.shared_memory_region.given:
        if t.has_contents:
            return fail_named(
                r, b"unexpected 'content' provided when using shared memory for input tensor '%.*s' for model '%.*s'",
                t.name,
            )
        at.wire_source = WIRE_SOURCE_SHARED
        at.shared = shared_from_wire(message, 4, t.name, r.request, r.spec, r.err)
        if at.shared == NULL:
            return -1
        at.position = -1
        r.shared_input_count += 1
        return 0
    at.position = r.input_count
    r.input_count += 1
    if t.has_contents:
        if check_contents(r, &t, at.dtype) < 0:
            return -1
        at.wire_source = WIRE_SOURCE_CONTENTS
        at.wire = message.bytes
        at.wire_count = t.counts[wire_field(WIRE_SOURCE_CONTENTS, at.dtype).number]
        at.content_bytes = t.content_bytes
        r.contents_count += 1
    return 0


# ---- outputs

cdef int read_output_fields(Span* name, TensorParameters* parameters, const ProtoField* message) noexcept nogil:
    cdef ProtoScan scan
    cdef ProtoField f
    cdef int status
    memset(name, 0, sizeof(Span))
    memset(parameters, 0, sizeof(TensorParameters))
    proto_start(&scan, message.bytes.p, message.bytes.n, 2)
    while True:
        status = proto_next(&scan, &f)
        if status <= 0:
            return status
        if f.number == 1:
            status = proto_text(&f, name)
        elif f.number == 2 and f.wire == WIRE_BYTES:
            status = read_tensor_parameter(parameters, &f)
        if status < 0:
            return -1


cdef int read_output(Reader* r, const ProtoField* message) noexcept nogil:
    cdef TensorParameters parameters
    cdef InferRequest* request = r.request
    cdef Span name
    cdef int index
    cdef int i
    if read_output_fields(&name, &parameters, message) < 0:
        return fail_malformed(r.err)
    index = infer_find_tensor(r.spec.outputs, r.spec.n_outputs, name)
    if index < 0:
        return infer_fail_unexpected(r.err, True, name, r.spec)
    for i in range(request.n_outputs):
        if request.outputs[i].spec_index == index:
            return infer_fail(
                r.err, INFER_INVALID_ARGUMENT, b"output '%.*s' already exists in request", clip(name), name.p
            )
    if check_output_parameters(&parameters, name, r.err) < 0:
        return -1
    if infer_classes_ask(
        &request.outputs[request.n_outputs], &r.spec.outputs[index], parameters.classification.value, r.err
    ) < 0:
        return -1
    request.outputs[request.n_outputs].spec_index = index
    request.outputs[request.n_outputs].binary = 1
    request.outputs[request.n_outputs].shared = NULL
    if parameters.shared_memory_region.given:
        request.outputs[request.n_outputs].shared = shared_from_wire(message, 2, name, request, r.spec, r.err)
        if request.outputs[request.n_outputs].shared == NULL:
            return -1
    request.n_outputs += 1
    return 0


# ---- the request

cdef InputRef* input_at(const Reader* r, int position) noexcept nogil:
    """The n-th input of the request; most requests name them in the model's order."""
    cdef InputRef* inputs = r.request.inputs
    cdef int i
    if position < r.spec.n_inputs and inputs[position].spec_index >= 0 and inputs[position].position == position:
        return &inputs[position]
    for i in range(r.spec.n_inputs):
        if inputs[i].spec_index >= 0 and inputs[i].position == position:
            return &inputs[i]
    return NULL


cdef int check_sources(const Reader* r) noexcept nogil:
    """Every input that is not in shared memory has raw contents, or every one has typed contents."""
    cdef int i
    cdef InputRef* at = NULL
    if r.raw_count > r.input_count and r.contents_count == 0:
        return infer_fail(
            r.err, INFER_INVALID_ARGUMENT,
            b"unexpected additional input data for model '%.*s': %d raw_input_contents for %d inputs",
            clip(r.spec.name), r.spec.name.p, r.raw_count, r.input_count,
        )
    if r.raw_count + r.contents_count == r.input_count and (r.raw_count == 0 or r.contents_count == 0):
        return 0
    for i in range(r.input_count):
        at = input_at(r, i)
        if at.wire_source and r.raw_count:
            return fail_named(
                r, b"contents field must not be specified when using raw_input_contents for '%.*s' for model '%.*s'",
                r.spec.inputs[at.spec_index].name,
            )
        if not at.wire_source and i >= r.raw_count:
            break
    return fail_named(
        r, b"unable to find data for input tensor '%.*s' for model '%.*s' in request.",
        r.spec.inputs[at.spec_index].name,
    )


cdef void take_raw(Reader* r, const char* buf, size_t n) noexcept nogil:
    """Hands the raw contents to the inputs, in the order of the request."""
    cdef ProtoScan scan
    cdef ProtoField f
    cdef InputRef* at
    cdef int position = 0
    proto_start(&scan, buf, n, 1)
    while position < r.raw_count and proto_next(&scan, &f) > 0:
        if f.number == 7 and f.wire == WIRE_BYTES:
            at = input_at(r, position)
            at.is_binary = 1
            at.bytes = f.bytes
            position += 1


cdef int read_request(Reader* r, const char* buf, size_t n) noexcept nogil:
    cdef ProtoScan scan
    cdef ProtoField f
    cdef Span ignored
    cdef int status
    proto_start(&scan, buf, n, 1)
    while True:
        status = proto_next(&scan, &f)
        if status <= 0:
            break
        if f.number == 1 or f.number == 2:
            status = proto_text(&f, &ignored)
        elif f.number == 3:
            status = proto_text(&f, &r.request.id)
        elif f.wire == WIRE_BYTES:
            if f.number == 4:
                status = read_request_parameter(&r.parameters, &f)
            elif f.number == 5:
                if read_input(r, &f) < 0:
                    return -1
            elif f.number == 6:
                if read_output(r, &f) < 0:
                    return -1
            elif f.number == 7:
                r.raw_count += 1
        if status < 0:
            break
    if status < 0:
        return fail_malformed(r.err)
    r.request.has_id = r.request.id.n > 0
    r.request.n_inputs = r.input_count + r.shared_input_count
    return 0


cdef int infer_wire_index(
    const char* buf, size_t n, const ModelSpec* spec, InferRequest* out, InferError* err
) noexcept nogil:
    cdef Reader r
    cdef int i
    memset(&r, 0, sizeof(r))
    r.spec = spec
    r.request = out
    r.err = err
    infer_request_reset(out, spec)
    out.binary_output_default = 1
    if read_request(&r, buf, n) < 0 or apply_request_parameters(&r.parameters, out, err) < 0:
        return -1
    if check_sources(&r) < 0:
        return -1
    take_raw(&r, buf, n)
    if infer_validate(out, spec, err) < 0:
        return -1
    for i in range(spec.n_inputs):
        if out.inputs[i].is_binary and tensor_bytes_check(
            out.inputs[i].bytes, out.inputs[i].dtype, spec.inputs[i].name, err
        ) < 0:
            return -1
    return 0


cdef int infer_wire_model(const char* buf, size_t n, Span* name, Span* version, InferError* err) noexcept nogil:
    cdef ProtoScan scan
    cdef ProtoField f
    cdef int status
    memset(name, 0, sizeof(Span))
    memset(version, 0, sizeof(Span))
    proto_start(&scan, buf, n, 1)
    while True:
        status = proto_next(&scan, &f)
        if status > 0 and f.number == 1:
            status = proto_text(&f, name) | 1
        elif status > 0 and f.number == 2:
            status = proto_text(&f, version) | 1
        if status < 0:
            return fail_malformed(err)
        if status == 0:
            return 0


# ---- Python face

def model(const unsigned char[::1] message):
    """See infer_wire.pyi."""
    cdef InferError err
    cdef Span name
    cdef Span version
    if infer_wire_model(<const char*>&message[0], <size_t>message.shape[0], &name, &version, &err) < 0:
        raise_infer_error(&err)
    return name.p[: name.n], version.p[: version.n]


def index(const unsigned char[::1] message, Spec spec, row_counts=()):
    """See infer_wire.pyi."""
    cdef InferRequest request
    cdef InferError err
    cdef const char* base = <const char*>&message[0]
    cdef size_t n = <size_t>message.shape[0]
    cdef int status
    if infer_request_alloc(&request, spec.c) < 0:
        raise MemoryError
    try:
        with nogil:
            status = infer_wire_index(base, n, spec.c, &request, &err)
        if status < 0:
            raise_infer_error(&err)
        return request_as_dict(&request, spec.c, base, row_counts)
    finally:
        infer_request_free(&request)
