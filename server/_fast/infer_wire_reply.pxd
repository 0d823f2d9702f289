"""inference.ModelInferResponse with raw contents, alone or inside a ModelStreamInferResponse.

Knows nothing of gRPC framing: the caller puts the five bytes before the message and fills their length afterwards.
Borrows the tensors, appends to an OutBuf that the caller owns, which is grown at most once. Where the request asks for
classes, they are written in place of the values. Any thread; O(bytes).
"""

from server._fast.infer_spec cimport InferRequest, ModelSpec, ReplyTensor, Span, Spec
from server._fast.outbuf cimport OutBuf


# Appends the message: 0, or -1 when memory is out or the message would pass 2 GiB (then b.len is as before).
# `stream`: as ModelStreamInferResponse, with the parameter triton_final_response that Triton gives every streamed
# reply.
cdef int infer_wire_reply(
    OutBuf* b, const ModelSpec* spec, const InferRequest* request, const ReplyTensor* tensors, int count, int stream
) noexcept nogil
# Appends a ModelStreamInferResponse that says why one request of a stream failed; `id` is that request's.
cdef int infer_wire_stream_error(OutBuf* b, Span text, Span id) noexcept nogil


# For the Python faces: rows (index of the output, shape, packed elements in segments) as C; borrows the segments'
# bytes.
cdef class ReplyTensors:
    cdef ReplyTensor* c
    cdef int count
    cdef object _keep
    cdef int add(self, Spec spec, int spec_index, shape, list segments) except -1
