"""What requests say about a tensor in shared memory.

The contract is in infer_shared_parameters.pxd. Keys and types are Triton's. A protobuf tensor is walked a second time
for them: its reader has seen the region's key, and keeps nothing else.
"""

from libc.stdint cimport UINT64_MAX
from libc.string cimport memset

from server._fast.infer_json_reader cimport fail_named, key_is, read_count, read_text
from server._fast.infer_parameters cimport PARAMETER_STRING, Parameter, check_count, fail_type, read_entry
from server._fast.infer_spec cimport INFER_INVALID_ARGUMENT, infer_fail, infer_request_share
from server._fast.proto_scan cimport WIRE_BYTES, ProtoScan, proto_next, proto_start, proto_text_is

cdef const char* NO_SIZE = b"'shared_memory_byte_size' must be given with 'shared_memory_region' for '%.*s'"


cdef int shared_json_parameter(Reader* r, const Text* key, JsonShared* out) noexcept nogil:
    cdef int status
    if key_is(key, b"shared_memory_region", 20):
        out.given |= SHARED_REGION
        status = read_text(r, b"shared_memory_region", &out.region)
    elif key_is(key, b"shared_memory_byte_size", 23):
        out.given |= SHARED_BYTE_SIZE
        status = read_count(r, b"shared_memory_byte_size", UINT64_MAX, &out.byte_size)
    elif key_is(key, b"shared_memory_offset", 20):
        out.given |= SHARED_OFFSET
        status = read_count(r, b"shared_memory_offset", UINT64_MAX, &out.offset)
    else:
        return 0
    return 1 if status == 0 else -1


cdef SharedRef* shared_from_json(Reader* r, const JsonShared* said, const Text* name) noexcept nogil:
    cdef SharedRef* shared
    if not said.given & SHARED_BYTE_SIZE:
        fail_named(r, INFER_INVALID_ARGUMENT, NO_SIZE, name)
        return NULL
    shared = infer_request_share(r.request, r.spec)
    shared.region = said.region.raw
    shared.escaped = said.region.escaped
    shared.offset = said.offset if said.given & SHARED_OFFSET else 0
    shared.byte_size = said.byte_size
    return shared


cdef SharedRef* shared_from_wire(
    const ProtoField* message, unsigned parameters, Span name, InferRequest* request, const ModelSpec* spec,
    InferError* err
) noexcept nogil:
    cdef ProtoScan scan
    cdef ProtoField f
    cdef Span key
    cdef Parameter value, region, byte_size, offset
    cdef SharedRef* shared
    memset(&region, 0, sizeof(Parameter))
    memset(&byte_size, 0, sizeof(Parameter))
    memset(&offset, 0, sizeof(Parameter))
    proto_start(&scan, message.bytes.p, message.bytes.n, 2)
    while proto_next(&scan, &f) > 0:
        if f.number != parameters or f.wire != WIRE_BYTES or read_entry(&f, 3, &key, &value) <= 0:
            continue
        if proto_text_is(key, b"shared_memory_region", 20):
            region = value
        elif proto_text_is(key, b"shared_memory_byte_size", 23):
            byte_size = value
        elif proto_text_is(key, b"shared_memory_offset", 20):
            offset = value
    if region.kind != PARAMETER_STRING:
        fail_type(b"shared_memory_region", b"string_param", err)
        return NULL
    if not byte_size.given:
        infer_fail(err, INFER_INVALID_ARGUMENT, NO_SIZE, <int>(name.n if name.n < 128 else 128), name.p)
        return NULL
    if check_count(&byte_size, b"shared_memory_byte_size", UINT64_MAX, err) < 0:
        return NULL
    if check_count(&offset, b"shared_memory_offset", UINT64_MAX, err) < 0:
        return NULL
    shared = infer_request_share(request, spec)
    shared.region = region.text
    shared.offset = offset.value
    shared.byte_size = byte_size.value
    return shared
