"""TensorFlow Serving's (and KServe V1's) predict reply: {"predictions": [...]} or {"outputs": ...}.

Knows nothing of HTTP. Borrows the tensors, appends to an OutBuf that the caller owns; allocates only when that must
grow. Any thread. O(elements). Lists nest as the output's shape does; one output stands bare, several are the members of
an object, in row form of one object per row. A float is the shortest text that reads back to the same bits, with a
point or an exponent; NaN and infinities are bare tokens.
"""

from server._fast.infer_spec cimport InferError, ModelSpec, ReplyTensor
from server._fast.outbuf cimport OutBuf


# Appends the reply in a form of tfs_json_explain.pxd: 0, or -1 and a text (then b.len is as before): memory is out, or
# the outputs have not all the same number of rows.
cdef int tfs_json_reply(
    OutBuf* b, const ModelSpec* spec, const ReplyTensor* tensors, int count, int form, InferError* err
) noexcept nogil
