"""What `parameters` of a KServe V2 JSON request mean: of the request, of an input, of an output.

Reserved keys are Triton's, with its types and texts. Others are the model's business and ignored: any scalar of a
request, any value of a tensor. Part of a reader's pass (infer_json_reader.pxd): functions return 0, or -1 with the
error filled. O(bytes).
"""

from libc.stdint cimport INT64_MAX, UINT64_MAX, int64_t, uint64_t
from libc.string cimport memcmp

from server._fast.infer_json_reader cimport (
    Keys,
    Reader,
    Text,
    enter,
    fail_json,
    fail_named,
    json_peek,
    json_scalar,
    json_skip,
    json_unescape,
    json_word,
    key_is,
    more,
    next_key,
    note_unknown,
    read_bool,
    read_count,
    read_text,
)
from server._fast.infer_shared_parameters cimport SHORTEST_KEY_BYTES, JsonShared, shared_json_parameter
from server._fast.infer_spec cimport INFER_INVALID_ARGUMENT, INFER_UNIMPLEMENTED, infer_fail


cdef inline int read_sequence_id(Reader* r) noexcept nogil:
    cdef Text text
    cdef uint64_t number = 0
    text.raw.n = 0
    if json_peek(&r.scan) == b'"':
        if read_text(r, b"sequence_id", &text) < 0:
            return -1
    elif read_count(r, b"sequence_id", UINT64_MAX, &number) < 0:
        return -1
    if number != 0 or text.raw.n != 0:
        return infer_fail(
            r.err, INFER_UNIMPLEMENTED, b"'sequence_id' is not supported: this server keeps no state between requests"
        )
    return 0


cdef inline int read_request_parameter(Reader* r, Keys* keys, const Text* key) noexcept nogil:
    cdef uint64_t count = 0
    cdef int flag = 0
    cdef char first
    cdef char prefix[7]
    if note_unknown(r, keys, key) < 0:
        return -1
    first = json_peek(&r.scan)
    if key_is(key, b"triton_enable_empty_final_response", 34):
        return read_bool(r, b"triton_enable_empty_final_response", &flag)
    if json_unescape(key.raw, prefix, sizeof(prefix)) == 7 and memcmp(prefix, b"triton_", 7) == 0:
        return infer_fail(
            r.err, INFER_INVALID_ARGUMENT,
            b"parameter keys starting with 'triton_' are reserved for Triton usage and should not be specified.",
        )
    if first == b"n" and json_word(&r.scan, b"null", 4):
        return 0
    if key_is(key, b"binary_data_output", 18):
        return read_bool(r, b"binary_data_output", &r.request.binary_output_default)
    if key_is(key, b"timeout", 7):
        if read_count(r, b"timeout", <uint64_t>INT64_MAX, &count) < 0:
            return -1
        r.request.timeout_us = <int64_t>count
        return 0
    if key_is(key, b"priority", 8):
        return read_count(r, b"priority", UINT64_MAX, &r.request.priority)
    if key_is(key, b"sequence_id", 11):
        return read_sequence_id(r)
    if key_is(key, b"sequence_start", 14):
        return read_bool(r, b"sequence_start", &flag)
    if key_is(key, b"sequence_end", 12):
        return read_bool(r, b"sequence_end", &flag)
    if first == b"{" or first == b"[":
        return fail_named(
            r, INFER_INVALID_ARGUMENT,
            b"parameter '%.*s' has invalid type. It should be either 'int', 'bool', 'double' or 'string'.", key,
        )
    if json_scalar(&r.scan) < 0:
        return fail_json(r)
    return 0


cdef inline int read_request_parameters(Reader* r) noexcept nogil:
    cdef Keys keys
    cdef Text key
    cdef int entered
    keys.known = 0
    keys.unknown_count = 0
    entered = enter(r, b"parameters", b"{")
    while entered > 0:
        if next_key(r, &key) < 0 or read_request_parameter(r, &keys, &key) < 0:
            return -1
        entered = more(r, b"{")
    return entered


# What the parameters of one input or output say; -1 where nothing is said.
cdef struct TensorParameters:
    int has_binary_size
    uint64_t binary_size
    int binary_data
    JsonShared shared
    uint64_t classification


cdef inline int read_tensor_parameter(
    Reader* r, Keys* keys, const Text* key, int of_input, TensorParameters* out
) noexcept nogil:
    cdef int status
    if note_unknown(r, keys, key) < 0:
        return -1
    if json_peek(&r.scan) == b"n" and json_word(&r.scan, b"null", 4):
        return 0
    if of_input and key_is(key, b"binary_data_size", 16):
        out.has_binary_size = 1
        return read_count(r, b"binary_data_size", <uint64_t>INT64_MAX, &out.binary_size)
    if not of_input and key_is(key, b"binary_data", 11):
        return read_bool(r, b"binary_data", &out.binary_data)
    if not of_input and key_is(key, b"classification", 14):
        return read_count(r, b"classification", UINT64_MAX, &out.classification)
    if key.raw.n >= SHORTEST_KEY_BYTES:
        status = shared_json_parameter(r, key, &out.shared)
        if status:
            return 0 if status > 0 else -1
    if json_skip(&r.scan) < 0:
        return fail_json(r)
    return 0


cdef inline int read_tensor_parameters(Reader* r, int of_input, TensorParameters* out) noexcept nogil:
    cdef Keys keys
    cdef Text key
    cdef int entered
    keys.known = 0
    keys.unknown_count = 0
    if json_peek(&r.scan) == b"n" and json_word(&r.scan, b"null", 4):
        return 0
    entered = enter(r, b"parameters", b"{")
    while entered > 0:
        if next_key(r, &key) < 0 or read_tensor_parameter(r, &keys, &key, of_input, out) < 0:
            return -1
        entered = more(r, b"{")
    return entered
