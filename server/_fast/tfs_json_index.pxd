"""TensorFlow Serving's (and KServe V1's) predict body: where the tensors lie, and whether the model can take them.

Fills the same InferRequest as infer_json_index. A list is not copied: its text is the input's json_data and its shape
comes from one scan of brackets and commas (json_shape.h). Objects in `instances` scatter an input over the body, so
their numbers are gathered into the caller's scratch and the input is binary. Spans borrow from the body and from
the scratch, until the next call with either. No state between calls, any thread; O(body bytes).

Typing is TensorFlow Serving's: an integer takes JSON integers, a bool true or false, a float any number, NaN, Infinity;
bytes behind the first JSON value are not looked at. Beyond it, uint16, half and bfloat16 are served too, integers
outside of their type's range are refused, and so is a key twice in an object that is read. A model without batch axis
takes `instances` when they stack to its shape, or a single one that has its shape.
"""

from server._fast.infer_spec cimport InferError, InferRequest, ModelSpec
from server._fast.outbuf cimport OutBuf


# The form of the request (tfs_json_explain.pxd), or -1 and a text. The elements of lists are read later: when that
# fails, tfs_json_explain has TensorFlow Serving's text.
cdef int tfs_json_index(
    const char* buf, size_t n, const ModelSpec* spec, OutBuf* scratch, InferRequest* out, InferError* err
) noexcept nogil
