"""inference.ModelInferRequest (KServe V2 over gRPC) without message objects: where everything lies in one message.

Reads what the protobuf library reads: fields in any order, the last scalar wins, repeated embedded messages are merged,
map entries replace earlier ones of the same key (one with fields beside key and value is left out), unknown fields are
skipped, strings must be UTF-8. Raw contents are
spans of the message; typed contents are counted and checked here and read by wire_fill. Spans borrow from the message.
Allocates nothing, holds no state between calls, any thread; O(message bytes).

A message that is not protobuf is refused as an invalid argument: it is the client's fault, though gRPC libraries say
INTERNAL. More raw contents than inputs are refused, where Triton ignores them.
"""

from server._fast.infer_spec cimport InferError, InferRequest, ModelSpec, Span


# Which model a message is for; absent fields are empty. 0, or -1 and a text when it is not protobuf.
cdef int infer_wire_model(const char* buf, size_t n, Span* name, Span* version, InferError* err) noexcept nogil
# The whole message, checked against the model: 0, or -1 and a text. Every output is marked binary.
cdef int infer_wire_index(
    const char* buf, size_t n, const ModelSpec* spec, InferRequest* out, InferError* err
) noexcept nogil
