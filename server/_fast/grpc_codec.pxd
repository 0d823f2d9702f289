"""C face of the gRPC inference protocols: one request message and one reply message, whatever carries them.

A form says which method was called, so which protocol its messages speak.
"""

from libc.stdint cimport int64_t, uint64_t

from server._fast.frontend cimport Frontend
from server._fast.infer_call cimport InferCall, LaneClient
from server._fast.infer_spec cimport InferError
from server._fast.outbuf cimport OutBuf

cdef enum:
    GRPC_NO_INFERENCE = 0      # not a method of the fast path
    GRPC_V2_INFER = 1          # /inference.GRPCInferenceService/ModelInfer
    GRPC_V2_STREAM_INFER = 2   # /inference.GRPCInferenceService/ModelStreamInfer
    GRPC_TFS_PREDICT = 3       # /tensorflow.serving.PredictionService/Predict
    GRPC_FORM_COUNT = 4


cdef inline bint grpc_is_streamed(int form) noexcept nogil:
    """Whether a call has any number of requests, each with its reply or its refusal as a message."""
    return form == GRPC_V2_STREAM_INFER


# What a method's path asks for, and back; a form that is no inference has no path.
cdef int grpc_form(const char* path, size_t n) noexcept nogil
cdef bytes grpc_path(int form)
# The lane that a request message is for, or None with the refusal in err: not protobuf, no such model, not ready.
cdef LaneClient grpc_find(Frontend frontend, int form, const char* message, size_t n, InferError* err)
# Reads a message into `call` and sets it in flight: 0, or -1 with the refusal in err (the call is over and forgets its
# responder). Before it, the caller sets the call's responder, tag, form and received_ns. timeout_ns: of the call, <= 0
# none.
cdef int grpc_submit(Frontend frontend, LaneClient lane, InferCall call, const char* message, size_t n,
                     int64_t timeout_ns, uint64_t now, InferError* err) except -2
# Appends the reply message of a call that succeeded: 0, or -1 when memory is out (then b.len is as before).
cdef int grpc_reply(Frontend frontend, InferCall call, OutBuf* b) noexcept
# Appends the message that refuses one request of a streamed call: 0, or -1 when memory is out.
cdef int grpc_refusal(int form, OutBuf* b, const InferError* err) noexcept nogil
