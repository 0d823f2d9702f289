"""KServe V2 infer reply: JSON part, then the binary sections of the outputs that were asked for in binary.

Knows nothing of HTTP: the caller writes the head with the length of the JSON part. Borrows the tensors, appends to an
OutBuf that the caller owns; allocates only when that must grow. Any thread. O(elements). `data` is always flat; a float
is the shortest text that reads back to the same bits, with a point or an exponent; NaN and infinities are bare tokens.
Where the request asks for classes, they are written in place of the values.
"""

from server._fast.infer_spec cimport InferError, InferRequest, ModelSpec, ReplyTensor
from server._fast.outbuf cimport OutBuf


# Appends the reply: 0, or -1 and a text (then b.len is as before): memory is out, or BYTES that are no UTF-8 were asked
# for as JSON. *json_bytes gets the length of the JSON part.
cdef int infer_json_reply(
    OutBuf* b,
    const ModelSpec* spec,
    const InferRequest* request,
    const ReplyTensor* tensors,
    int count,
    size_t* json_bytes,
    InferError* err,
) noexcept nogil
