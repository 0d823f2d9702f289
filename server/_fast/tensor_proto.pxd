"""tensorflow.serving.PredictRequest without message objects: model, inputs as TensorProto, outputs asked for.

Reads what the protobuf library reads (see infer_wire.pxd). An input's elements are its tensor_content, a span of the
message, or else the *_val field of its datatype, read by wire_fill: the last value stands for all that are missing, and
zeros where there is none, as TensorFlow reads them. Stricter than TensorFlow: more values than the shape has are
refused, and so are values in the field of another datatype where the own one is empty. Texts are TensorFlow Serving's
where it has one. At most 64 MiB are filled by repeating. Spans borrow from the message. Allocates nothing, holds no
state between calls, any thread; O(message bytes + names squared).
"""

from libc.stdint cimport int64_t

from server._fast.infer_spec cimport InferError, InferRequest, ModelSpec, Span


# tensorflow.serving.ModelSpec.
cdef struct TfsModel:
    int given
    Span name
    int has_version        # `version` is it; else `label`, when it is not empty
    int64_t version
    Span label
    Span signature         # empty: serving_default


# Which model a message is for: 0, or -1 and a text when it is not protobuf.
cdef int tfs_predict_model(const char* buf, size_t n, TfsModel* model, InferError* err) noexcept nogil
# The whole message, checked against the model: 0, or -1 and a text.
cdef int tfs_predict_index(
    const char* buf, size_t n, const ModelSpec* spec, InferRequest* out, InferError* err
) noexcept nogil
