"""What the parameters of a KServe V2 gRPC request mean: map<string, InferParameter> of requests, inputs and outputs.

An entry is kept under its key until the message is read, as a later one of the same key replaces it; then the kept ones
are applied. Only reserved keys are kept, so any number of entries costs no memory. Keys and texts are Triton's; other
keys are the model's business and ignored. Spans borrow from the message; any thread; O(bytes of the entries).
"""

from libc.stdint cimport INT64_MAX, int64_t, uint64_t
from libc.string cimport memcmp, memset

from server._fast.infer_spec cimport (
    INFER_INVALID_ARGUMENT,
    INFER_UNIMPLEMENTED,
    InferError,
    InferRequest,
    Span,
    infer_fail,
)
from server._fast.proto_scan cimport (
    WIRE_BYTES,
    WIRE_FIXED64,
    WIRE_VARINT,
    ProtoField,
    ProtoScan,
    proto_next,
    proto_start,
    proto_text,
    proto_text_is,
)


# InferParameter's oneof, by field number.
cdef enum:
    PARAMETER_UNSET = 0
    PARAMETER_BOOL = 1
    PARAMETER_INT64 = 2
    PARAMETER_STRING = 3
    PARAMETER_DOUBLE = 4
    PARAMETER_UINT64 = 5


cdef struct Parameter:
    int given              # the key is there
    int kind
    uint64_t value
    Span text


cdef struct RequestParameters:
    Parameter sequence_id
    Parameter sequence_start
    Parameter sequence_end
    Parameter priority
    Parameter timeout
    Parameter empty_final_response
    int reserved           # a key that begins with triton_ and is not ours to take


cdef struct TensorParameters:
    Parameter shared_memory_region   # with what belongs to it: infer_shared_parameters
    Parameter classification


# ---- reading

cdef inline int read_value(Parameter* out, const ProtoField* message, int depth) noexcept nogil:
    cdef ProtoScan scan
    cdef ProtoField f
    cdef Span text
    cdef int status
    proto_start(&scan, message.bytes.p, message.bytes.n, depth)
    while True:
        status = proto_next(&scan, &f)
        if status <= 0:
            return status
        if f.wire == WIRE_BYTES and f.number == PARAMETER_STRING:
            if proto_text(&f, &text) < 0:
                return -1
            out.text = text
        elif f.wire == WIRE_FIXED64 and f.number == PARAMETER_DOUBLE:
            pass
        elif f.wire == WIRE_VARINT and (
            f.number == PARAMETER_BOOL or f.number == PARAMETER_INT64 or f.number == PARAMETER_UINT64
        ):
            out.value = f.value
        else:
            continue
        out.kind = <int>f.number


cdef inline int read_entry(const ProtoField* entry, int depth, Span* key, Parameter* value) noexcept nogil:
    """One map entry at `depth`: 1, 0 when it has other fields than key and value, which makes the library leave it
    out.
    """
    cdef ProtoScan scan
    cdef ProtoField f
    cdef int status
    cdef int others = 0
    memset(key, 0, sizeof(Span))
    memset(value, 0, sizeof(Parameter))
    value.given = 1
    proto_start(&scan, entry.bytes.p, entry.bytes.n, depth)
    while True:
        status = proto_next(&scan, &f)
        if status < 0:
            return -1
        if status == 0:
            return others == 0 and scan.skipped == 0
        if f.wire != WIRE_BYTES or f.number > 2:
            others = 1
        elif f.number == 1:
            status = proto_text(&f, key)
        else:
            status = read_value(value, &f, depth + 1)
        if status < 0:
            return -1


cdef inline int read_request_parameter(RequestParameters* out, const ProtoField* entry) noexcept nogil:
    """An entry of ModelInferRequest.parameters: 0, or -1 when it is malformed."""
    cdef Span key
    cdef Parameter value
    cdef int status = read_entry(entry, 2, &key, &value)
    if status <= 0:
        return status
    if proto_text_is(key, b"timeout", 7):
        out.timeout = value
    elif proto_text_is(key, b"priority", 8):
        out.priority = value
    elif proto_text_is(key, b"sequence_id", 11):
        out.sequence_id = value
    elif proto_text_is(key, b"sequence_start", 14):
        out.sequence_start = value
    elif proto_text_is(key, b"sequence_end", 12):
        out.sequence_end = value
    elif proto_text_is(key, b"triton_enable_empty_final_response", 34):
        out.empty_final_response = value
    elif key.n >= 7 and memcmp(key.p, b"triton_", 7) == 0:
        out.reserved = 1
    return 0


cdef inline int read_tensor_parameter(TensorParameters* out, const ProtoField* entry) noexcept nogil:
    """An entry of an input's or output's parameters: 0, or -1 when it is malformed."""
    cdef Span key
    cdef Parameter value
    cdef int status = read_entry(entry, 3, &key, &value)
    if status <= 0:
        return status
    if proto_text_is(key, b"shared_memory_region", 20):
        out.shared_memory_region = value
    elif proto_text_is(key, b"classification", 14):
        out.classification = value
    return 0


# ---- meaning

cdef inline int fail_type(const char* key, const char* expected, InferError* err) noexcept nogil:
    return infer_fail(
        err, INFER_INVALID_ARGUMENT, b"invalid value type for '%s' parameter, expected %s.", key, expected
    )


cdef inline int check_bool(const Parameter* value, const char* key, InferError* err) noexcept nogil:
    if value.given and value.kind != PARAMETER_BOOL:
        return fail_type(key, b"bool_param", err)
    return 0


cdef inline int check_count(const Parameter* value, const char* key, uint64_t most, InferError* err) noexcept nogil:
    """A number of [0, most], as int64 or uint64."""
    if not value.given:
        return 0
    if value.kind != PARAMETER_INT64 and value.kind != PARAMETER_UINT64:
        return fail_type(key, b"int64_param or uint64_param", err)
    if (value.kind == PARAMETER_INT64 and value.value > <uint64_t>INT64_MAX) or value.value > most:
        return infer_fail(
            err, INFER_INVALID_ARGUMENT, b"invalid value for '%s', expected value >= 0 and <= %llu.",
            key, <unsigned long long>most,
        )
    return 0


cdef inline int check_sequence(const RequestParameters* said, InferError* err) noexcept nogil:
    cdef const Parameter* value = &said.sequence_id
    if check_bool(&said.sequence_start, b"sequence_start", err) < 0:
        return -1
    if check_bool(&said.sequence_end, b"sequence_end", err) < 0:
        return -1
    if not value.given:
        return 0
    if value.kind != PARAMETER_INT64 and value.kind != PARAMETER_UINT64 and value.kind != PARAMETER_STRING:
        return fail_type(b"sequence_id", b"int64_param or string_param", err)
    if (value.kind == PARAMETER_STRING and value.text.n) or (value.kind != PARAMETER_STRING and value.value):
        return infer_fail(
            err, INFER_UNIMPLEMENTED, b"'sequence_id' is not supported: this server keeps no state between requests"
        )
    return 0


cdef inline int apply_request_parameters(
    const RequestParameters* said, InferRequest* request, InferError* err
) noexcept nogil:
    """0, or -1 and a text."""
    if said.reserved:
        return infer_fail(
            err, INFER_INVALID_ARGUMENT,
            b"parameter keys starting with 'triton_' are reserved for Triton usage. Only the following keys starting "
            b"with 'triton_' are allowed: triton_enable_empty_final_response",
        )
    if check_bool(&said.empty_final_response, b"triton_enable_empty_final_response", err) < 0:
        return -1
    if check_sequence(said, err) < 0:
        return -1
    if check_count(&said.timeout, b"timeout", <uint64_t>INT64_MAX, err) < 0:
        return -1
    if check_count(&said.priority, b"priority", <uint64_t>-1, err) < 0:
        return -1
    request.timeout_us = <int64_t>said.timeout.value
    request.priority = said.priority.value
    return 0


cdef inline int check_output_parameters(const TensorParameters* said, Span name, InferError* err) noexcept nogil:
    if said.shared_memory_region.given and said.classification.given:
        return infer_fail(
            err, INFER_INVALID_ARGUMENT,
            b"output '%.*s': 'classification' cannot be combined with 'shared_memory_region'",
            <int>(name.n if name.n < 128 else 128), name.p,
        )
    if said.classification.given and said.classification.kind != PARAMETER_INT64:
        return fail_type(b"classification", b"int64_param", err)
    if said.classification.value > <uint64_t>INT64_MAX:
        return infer_fail(
            err, INFER_INVALID_ARGUMENT, b"invalid value for 'classification', expected value >= 0, got %lld",
            <long long>said.classification.value,
        )
    return 0
