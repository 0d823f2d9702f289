"""tensorflow.serving.PredictResponse: outputs as TensorProto, in *_val fields or as tensor_content.

Knows nothing of gRPC framing. Borrows the tensors, appends to an OutBuf that the caller owns, which is grown at most
once. Any thread; O(bytes).
"""

from server._fast.infer_spec cimport ModelSpec, ReplyTensor
from server._fast.outbuf cimport OutBuf


# Appends the message: 0, or -1 when memory is out or the message would pass 2 GiB (then b.len is as before). The
# model's version stands there when it is a number. `as_content`: elements but strings as tensor_content, not in the
# field of their datatype.
cdef int tfs_predict_reply(
    OutBuf* b, const ModelSpec* spec, const ReplyTensor* tensors, int count, int as_content
) noexcept nogil
