"""What requests say about a tensor in shared memory, in JSON and in protobuf: region, byte size, offset.

Part of the readers' passes (infer_json_index, infer_wire), but a module of its own, so that requests without shared
memory run through none of it: its functions are not inlined into theirs. Texts borrow from the request. Functions
return >= 0, or -1 (a SharedRef: NULL) with the error filled. Any thread; O(bytes of the parameters).
"""

from libc.stdint cimport uint64_t

from server._fast.infer_json_reader cimport Reader, Text
from server._fast.infer_spec cimport InferError, InferRequest, ModelSpec, SharedRef, Span
from server._fast.proto_scan cimport ProtoField

cdef enum:
    SHARED_REGION = 1
    SHARED_BYTE_SIZE = 2
    SHARED_OFFSET = 4
    SHORTEST_KEY_BYTES = 20


# Which of them a JSON tensor's parameters have; zero before the first.
cdef struct JsonShared:
    int given
    Text region
    uint64_t byte_size
    uint64_t offset


# A key of a JSON tensor's parameters: 1 when it is one of them and its value has been read, else 0.
cdef int shared_json_parameter(Reader* r, const Text* key, JsonShared* out) noexcept nogil
# Notes the tensor `name` in the request. SHARED_REGION is given.
cdef SharedRef* shared_from_json(Reader* r, const JsonShared* said, const Text* name) noexcept nogil
# The same of a protobuf tensor; `parameters`: the number of that field in its message.
cdef SharedRef* shared_from_wire(
    const ProtoField* message, unsigned parameters, Span name, InferRequest* request, const ModelSpec* spec,
    InferError* err
) noexcept nogil
