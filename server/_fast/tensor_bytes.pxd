"""Binary tensor sections of a KServe V2 body: which bytes behind the JSON part belong to which input.

Knows nothing of JSON: the reader of the JSON part hands over each `binary_data_size` in the order of the `inputs`
array, and asks at the end whether anything is left over. Borrows the body, allocates nothing, any thread; O(1) per
section, O(bytes) for BOOL contents. Source: Triton's binary tensor data extension.
"""

from libc.stdint cimport uint64_t

from server._fast.infer_spec cimport InferError, InferRequest, ModelSpec, Span


cdef struct BinarySections:
    const char* p      # the next section
    const char* end    # of the body


cdef inline void tensor_bytes_begin(BinarySections* s, const char* p, const char* end) noexcept nogil:
    s.p = p
    s.end = end


# Takes the next section of byte_count bytes for input `name`: 0, or -1 and Triton's text.
cdef int tensor_bytes_take(
    BinarySections* s, uint64_t byte_count, Span name, const ModelSpec* spec, Span* out, InferError* err
) noexcept nogil
# Behind the last section: 0, or -1 when bytes are left over.
cdef int tensor_bytes_end(const BinarySections* s, const ModelSpec* spec, InferError* err) noexcept nogil
# A body that is one tensor without any JSON (Inference-Header-Content-Length: 0): deduces the shape, all outputs
# binary.
cdef int tensor_bytes_raw(Span body, const ModelSpec* spec, InferRequest* r, InferError* err) noexcept nogil
# BOOL elements are 0 or 1: 0, or -1 and a text.
cdef int tensor_bytes_check(Span contents, int dtype, Span name, InferError* err) noexcept nogil
