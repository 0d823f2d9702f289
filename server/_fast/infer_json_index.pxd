"""KServe V2 infer request: where everything lies, and whether the model can take it.

One pass over the JSON part without recursion: names are resolved against the ModelSpec, the text of each `data` value
is found by its brackets (infer_json_fill checks and converts what is inside), binary sections behind the JSON part are
cut up, then infer_validate. Spans borrow from the body. Allocates nothing, holds no state between calls, any thread.
O(body bytes).

Unknown keys are skipped; a key twice in an object that is read (not in one that is skipped) is refused. At most 100
levels, at most 64 unknown keys in one object that is read. `null` for an optional member is the same as its absence.
"""

from server._fast.infer_spec cimport InferError, InferRequest, ModelSpec


# buf[0:json_len] is the JSON part, buf[json_len:total_len] binary sections. 0, or -1 and a text.
cdef int infer_json_index(
    const char* buf, size_t json_len, size_t total_len, const ModelSpec* spec, InferRequest* out, InferError* err
) noexcept nogil
# A body without JSON part (Inference-Header-Content-Length: 0): one tensor, all outputs binary.
cdef int infer_raw_index(
    const char* body, size_t n, const ModelSpec* spec, InferRequest* out, InferError* err
) noexcept nogil
