"""C face of the REST inference protocols: one request and one reply, whatever connection carries them.

A form says which protocol a request speaks, later in what shape its reply is written: 0 is KServe V2, others are a
TfsForm.
"""

from libc.stdint cimport int64_t, uint64_t

from server._fast.frontend cimport Frontend
from server._fast.infer_call cimport InferCall, LaneClient
from server._fast.infer_spec cimport InferError
from server._fast.media_type cimport is_media_type_known
from server._fast.outbuf cimport OutBuf
from server._fast.tfs_json_explain cimport TFS_ROW

cdef enum:
    REST_V2 = 0
    REST_TFS = TFS_ROW     # which of its forms, the body says


cdef inline bint rest_takes_type(int form, const char* media_type, size_t n) noexcept nogil:
    """TensorFlow Serving does not look at the Content-Type."""
    return form != REST_V2 or is_media_type_known(media_type, n)


# The lane that the path of a POST asks an inference of, and its form; or None: no such path, no such model.
cdef LaneClient rest_find(Frontend frontend, const char* path, size_t n, int* form)
# Fills lane.request from a body: >= 0, or -1 with the refusal in err. *form becomes the reply's. What tensors hold is
# not looked at unless it is text.
cdef int rest_index(Frontend frontend, LaneClient lane, int* form, const char* body, size_t n, int64_t header_bytes,
                    InferError* err) noexcept nogil
# Reads a body into `call` and sets it in flight: 0, or -1 with the refusal in err (the call is over and forgets its
# responder). Before it, the caller sets the call's responder, tag, form and received_ns. header_bytes: of the field
# Inference-Header-Content-Length, -1 absent, -2 malformed.
cdef int rest_submit(Frontend frontend, LaneClient lane, InferCall call, const char* body, size_t n,
                     int64_t header_bytes, uint64_t now, InferError* err) except -2
# Appends the reply of a call that succeeded: 0, or -1 with the refusal in err. *json_bytes: how much of it is JSON.
cdef int rest_reply(InferCall call, OutBuf* b, size_t* json_bytes, InferError* err) noexcept
